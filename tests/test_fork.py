"""fork: the child has a runtime of its own, without goroutines."""

from __future__ import annotations

from goslings import go
from helpers import check_child, count, results


def test_fork_with_a_running_runtime() -> None:
    out = check_child(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads
        from goslings import chan, go, num_goroutine, select, recv, send, sleep, after
        ch, full = chan(), chan(1)
        full.send(0)
        parked = [go(ch.recv) for _ in range(10)] + [go(full.send, i) for i in range(10)]
        parked += [go(select, recv(ch), send(full, 1)) for _ in range(10)]
        while any("chan" not in repr(g) and "select" not in repr(g) for g in parked):
            sleep(0.001)
        pid = os.fork()
        if pid == 0:
            # Those that wait in the channels are ghosts here.
            assert num_goroutine() == 0, num_goroutine()
            assert not ch.try_send(1)
            g = go(ch.recv)
            ch.send(2)
            assert g.result(10) == 2
            assert full.recv() == 0
            assert full.try_recv(None) is None, "a ghost's value was let in"
            full.send(5)
            assert full.recv() == 5
            assert select(recv(after(0.001)), recv(ch)).index == 0
            a, b = chan(), chan(3)
            def work(n):
                for i in range(n):
                    a.send(i)
                    b.send(i)
            workers = [go(work, 100) for _ in range(4)]
            readers = [go(lambda: [a.recv() for _ in range(200)]) for _ in range(2)]
            more = [go(lambda: [b.recv() for _ in range(200)]) for _ in range(2)]
            total = sum(sum(g.result(10)) for g in readers + more)
            assert total == 2 * 4 * 4950, total
            ch.close()
            os._exit(7)
        _, status = os.waitpid(pid, 0)
        for i in range(10):
            ch.send(i)
        got = sorted(g.result() for g in parked[:10])
        print(os.waitstatus_to_exitcode(status), got == list(range(10)))
        """
    )
    assert out == "7 True\n"


def test_fork_inside_a_goroutine() -> None:
    out = check_child(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go, current, sleep, gosched
        ch = chan()
        others = [go(ch.recv) for _ in range(5)]

        def work():
            pid = os.fork()
            if pid == 0:
                # The child is this goroutine, now on the child's only thread.
                inner = chan()
                g = go(lambda: [inner.recv() for _ in range(10)])
                for i in range(10):
                    inner.send(i)
                    sleep(0.0001)
                assert g.result(10) == list(range(10))
                print("child", flush=True)
                os._exit(3)
            _, status = os.waitpid(pid, 0)
            return os.waitstatus_to_exitcode(status)

        print(go(work).result())
        for i in range(5):
            ch.send(i)
        print(sorted(g.result() for g in others))
        """
    )
    assert out == "child\n3\n[0, 1, 2, 3, 4]\n"


def test_a_goroutine_that_forked_and_returns_ends_the_child() -> None:
    out = check_child(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import go
        def work():
            pid = os.fork()
            if pid == 0:
                print("in the child")
                return None
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(go(work).result())
        """
    )
    assert out == "in the child\n0\n"


def test_forks_while_goroutines_run_and_timers_fire() -> None:
    out = check_child(
        f"""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go, sleep, gosched, Ticker
        ch, stop = chan(4), chan()
        def busy():
            while not stop.closed:
                ch.send(1)
                ch.recv()
                sleep(0.0001)
                gosched()
        workers = [go(busy) for _ in range(4)]
        ticker = Ticker(0.0001)
        ended = []
        for i in range({count(20)}):
            pid = os.fork()
            if pid == 0:
                inner = chan()
                go(inner.send, 1)
                ok = inner.recv(timeout=10) == 1
                sleep(0.001)
                os._exit(0 if ok else 1)
            ended.append(os.waitpid(pid, 0)[1])
        stop.close()
        for g in workers:
            g.result()
        print(set(ended))
        """
    )
    assert out == "{0}\n"


def test_a_forked_child_ends_normally() -> None:
    out = check_child(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go
        ch = chan()
        parked = [go(ch.recv) for _ in range(100)]
        pid = os.fork()
        if pid == 0:
            more = [go(ch.recv) for _ in range(100)]
            sys.exit(4)  # with atexit, finalization and all
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert out == "4\n"


def test_children_of_children() -> None:
    out = check_child(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go
        def work(depth):
            ch = chan()
            g = go(ch.recv)
            ch.send(depth)
            assert g.result(10) == depth
            if depth == 3:
                return 0
            pid = os.fork()
            if pid == 0:
                os._exit(work(depth + 1) + 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(work(0))
        """
    )
    assert out == "3\n"


def test_multiprocessing_by_fork() -> None:
    out = check_child(
        """
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go

        def squares(n):
            ch = chan()
            for i in range(n):
                go(lambda i=i: ch.send(i * i))
            return sorted(ch.recv() for _ in range(n))

        if __name__ == "__main__":
            squares(10)
            context = multiprocessing.get_context("fork")
            with context.Pool(2) as pool:
                print(pool.map(squares, [3, 4]))
        """
    )
    assert out == "[[0, 1, 4], [0, 1, 4, 9]]\n"


def test_a_subprocess_started_by_goroutines(two_workers: None) -> None:
    import subprocess

    def work(i: int) -> str:
        return subprocess.run(["echo", str(i)], capture_output=True, text=True, check=True).stdout

    assert results([go(work, i) for i in range(8)]) == [f"{i}\n" for i in range(8)]


def test_a_child_can_stop_the_world_although_others_wanted_to_when_it_was_forked() -> None:
    # Free-threaded 3.13 leaves the lock for that with a thread that does not exist in the child.
    out = check_child(
        """
        import gc, os, signal, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import goslings
        over = []
        def looks():
            while not over:
                gc.get_referrers(over)
        threads = [threading.Thread(target=looks) for _ in range(3)]
        for thread in threads:
            thread.start()
        ended = set()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(40)
                gc.get_referrers(over)
                os._exit(0)
            ended.add(os.waitpid(pid, 0)[1])
        over.append(1)
        for thread in threads:
            thread.join()
        print(ended)
        """
    )
    assert out == "{0}\n"
