"""One crawl in a fresh process: `python -m goslings.demo.crawl_child`, with what to do as JSON on standard input."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections import Counter
from typing import Any

from .feed_page import FeedError


def _bar(name: str) -> Any:
    """A progress bar on a terminal, if tqdm is installed; else nothing."""
    if sys.stderr.isatty():
        try:
            import threading

            from tqdm import tqdm

            tqdm.set_lock(threading.RLock())
            tqdm.monitor_interval = 0
            return tqdm(desc=f"{name:>9}", unit="page", leave=False)
        except ImportError:
            pass
    return None


def run(task: dict[str, Any]) -> dict[str, Any]:
    mode = task["mode"]
    if mode == "goslings":
        import goslings

        goslings.patch()
        goslings.gomaxprocs(task["workers"])
    from .crawl_fetch import Fetched, Rules
    from .crawl_modes import CRAWLERS, Frontier

    rules = Rules(task["url"], task["delay"], task["timeout"])
    frontier = Frontier(task["url"], rules, task["most"])
    visited: list[Fetched] = []
    bar = _bar(mode)

    def tell(fetched: Fetched) -> None:
        fetched.links.clear()
        visited.append(fetched)
        if bar is not None:
            bar.total = len(visited) + len(frontier.todo)
            bar.update()

    start = time.perf_counter()
    CRAWLERS[mode](frontier, rules, task["timeout"], task["width"], tell)
    seconds = time.perf_counter() - start
    if bar is not None:
        bar.close()
    pages = sorted(fetched.url for fetched in visited if not fetched.error)
    return {
        "requests": len(visited),
        "pages": len(pages),
        "errors": Counter(fetched.error for fetched in visited if fetched.error),
        "duplicates": frontier.duplicates,
        "forbidden": frontier.forbidden,
        "elsewhere": frontier.elsewhere,
        "bytes": sum(fetched.bytes for fetched in visited),
        "seconds": seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "digest": hashlib.sha256("\n".join(pages).encode()).hexdigest(),
    }


def main() -> int:
    try:
        answer = run(json.loads(sys.stdin.read()))
    except ImportError as error:
        answer = {"error": f"needs requests: pip install 'goslings[demo]' ({error})"}
    except FeedError as error:
        answer = {"error": str(error)}
    except KeyboardInterrupt:
        return 130
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
