package main

// The workloads about many goroutines at once, about time, and about the processor.

import (
	"bufio"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// procKiB reads a "Name:   123 kB" line of a file below /proc/self; 0 where there is none.
func procKiB(file, name string) float64 {
	f, err := os.Open("/proc/self/" + file)
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), name+":") {
			kib, _ := strconv.ParseFloat(strings.Fields(lines.Text())[1], 64)
			return kib
		}
	}
	return 0
}

// chain passes one value through n goroutines in a row.
func chain(n int, _ options) result {
	before := procKiB("smaps_rollup", "Rss")
	start := time.Now()
	leftmost := make(chan int)
	left := leftmost
	for i := 0; i < n; i++ {
		right := make(chan int)
		go func(left, right chan int) { left <- 1 + <-right }(left, right)
		left = right
	}
	go func() { left <- 1 }()
	got := <-leftmost
	elapsed := time.Since(start)
	peak := procKiB("status", "VmHWM") - before
	return result{elapsed: elapsed, items: n, lost: lost(got, n+1), extra: map[string]float64{
		"total_ms": elapsed.Seconds() * 1e3, "peak_mib": peak / 1024,
	}}
}

// parked starts n goroutines that wait on a receive, then wakes all by closing the channel.
func parked(n int, _ options) result {
	rss, pte := procKiB("smaps_rollup", "Rss"), procKiB("status", "VmPTE")
	gate := make(chan int)
	var started, ended sync.WaitGroup
	started.Add(n)
	ended.Add(n)
	var woken atomic.Int64
	begin := time.Now()
	for i := 0; i < n; i++ {
		go func() {
			started.Done()
			if _, ok := <-gate; !ok {
				woken.Add(1)
			}
			ended.Done()
		}()
	}
	started.Wait()
	start := time.Since(begin)
	time.Sleep(200 * time.Millisecond)
	rss, pte = procKiB("smaps_rollup", "Rss")-rss, procKiB("status", "VmPTE")-pte
	begin = time.Now()
	close(gate)
	ended.Wait()
	wake := time.Since(begin)
	return result{elapsed: start + wake, items: n, lost: n - int(woken.Load()), extra: map[string]float64{
		"bytes_each": rss * 1024 / float64(n), "page_table_bytes_each": pte * 1024 / float64(n),
		"start_s": start.Seconds(), "wake_s": wake.Seconds(),
	}}
}

// sieve is the concurrent prime sieve up to the n-th prime; an item is one value handed on.
func sieve(n int, _ options) result {
	generate := func(ch chan<- int) {
		for i := 2; ; i++ {
			ch <- i
		}
	}
	filter := func(in <-chan int, out chan<- int, prime int) {
		for {
			if i := <-in; i%prime != 0 {
				out <- i
			}
		}
	}
	start := time.Now()
	ch := make(chan int)
	go generate(ch)
	last := 0
	for i := 0; i < n; i++ {
		last = <-ch
		next := make(chan int)
		go filter(ch, next, last)
		ch = next
	}
	elapsed := time.Since(start)
	want, hops := sieveHops(n)
	return result{elapsed: elapsed, items: hops, lost: lost(last, want), extra: map[string]float64{
		"total_ms": elapsed.Seconds() * 1e3,
	}}
}

// sieveHops returns the n-th prime and how many values the sieve hands on to find it.
func sieveHops(n int) (prime, hops int) {
	primes := []int{}
	for i := 2; len(primes) < n; i++ {
		isPrime := true
		for k, p := range primes {
			if i%p == 0 {
				hops += k + 1
				isPrime = false
				break
			}
		}
		if isPrime {
			primes = append(primes, i)
			hops += len(primes)
		}
	}
	return primes[n-1], hops
}

// timer is n goroutines that each sleep 10 to 100 ms.
func timer(n int, _ options) result {
	late := make([]float64, n)
	var group sync.WaitGroup
	group.Add(n)
	start := time.Now()
	for i := 0; i < n; i++ {
		go func(i int) {
			delay := 10*time.Millisecond + time.Duration(i*7919%n)*90*time.Millisecond/time.Duration(n)
			begin := time.Now()
			time.Sleep(delay)
			late[i] = (time.Since(begin) - delay).Seconds() * 1e3
			group.Done()
		}(i)
	}
	group.Wait()
	elapsed := time.Since(start)
	sort.Float64s(late)
	early := 0
	if late[0] < 0 {
		early = 1
	}
	beyond := elapsed - 100*time.Millisecond
	return result{elapsed: elapsed, items: n, lost: early, extra: map[string]float64{
		"beyond_ms": beyond.Seconds() * 1e3, "late_p50_ms": late[n/2], "late_p99_ms": late[n*99/100],
	}}
}

//go:noinline
func spin(k int) int {
	sum := 0
	for i := 0; i < k; i++ {
		sum += i * i % 7
	}
	return sum
}

// cpu is n functions that only compute, in goroutines and one after the other.
func cpu(n int, _ options) result {
	const work = 20_000_000
	best := map[bool]time.Duration{}
	var sink atomic.Int64
	for round := 0; round < 3; round++ {
		for _, together := range []bool{false, true} {
			start := time.Now()
			var group sync.WaitGroup
			for i := 0; i < n; i++ {
				if together {
					group.Add(1)
					go func() { sink.Add(int64(spin(work))); group.Done() }()
				} else {
					sink.Add(int64(spin(work)))
				}
			}
			group.Wait()
			if took := time.Since(start); best[together] == 0 || took < best[together] {
				best[together] = took
			}
		}
	}
	want := spin(work) * n * 6
	return result{elapsed: best[true], items: n, lost: lost(int(sink.Load()), want), extra: map[string]float64{
		"speedup": best[false].Seconds() / best[true].Seconds(), "procs": float64(runtime.GOMAXPROCS(0)),
	}}
}
