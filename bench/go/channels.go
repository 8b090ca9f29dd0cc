package main

// The workloads about channels, mutexes and starting goroutines.

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// spawn starts and waits for n no-op goroutines.
func spawn(n int, _ options) result {
	start := time.Now()
	var group sync.WaitGroup
	for i := 0; i < n; i++ {
		group.Add(1)
		go func() { group.Done() }()
	}
	group.Wait()
	return result{elapsed: time.Since(start), items: n}
}

// echo is one side of pingpong: n round trips over two channels; it returns the sum it got back.
func echo(n int, locked bool) int {
	ping, pong := make(chan int), make(chan int)
	go func() {
		if locked {
			runtime.LockOSThread()
		}
		for v := range ping {
			pong <- v
		}
	}()
	sum := 0
	for i := 0; i < n; i++ {
		ping <- i
		sum += <-pong
	}
	close(ping)
	return sum
}

// stream sends n items through one channel of the given capacity and returns their sum.
func stream(n, capacity int, locked bool) int {
	ch := make(chan int, capacity)
	go func() {
		if locked {
			runtime.LockOSThread()
		}
		for i := 0; i < n; i++ {
			ch <- i
		}
		close(ch)
	}()
	sum := 0
	for v := range ch {
		sum += v
	}
	return sum
}

// inPairs runs one(n/pairs) in as many goroutines as pairs and checks their sums.
func inPairs(n, pairs int, one func(n int) int) result {
	each := n / pairs
	if each < 1 {
		each = 1
	}
	var wrong atomic.Int64
	start := time.Now()
	var group sync.WaitGroup
	for p := 0; p < pairs; p++ {
		group.Add(1)
		go func() {
			wrong.Add(int64(lost(one(each), sumBelow(each))))
			group.Done()
		}()
	}
	group.Wait()
	return result{elapsed: time.Since(start), items: each * pairs, lost: int(wrong.Load())}
}

func pingpong(n int, opt options) result {
	return inPairs(n, opt.pairs, func(n int) int { return echo(n, false) })
}

func unbuffered(n int, opt options) result {
	return inPairs(n, opt.pairs, func(n int) int { return stream(n, 0, false) })
}

func buffered(n int, opt options) result {
	return inPairs(n, opt.pairs, func(n int) int { return stream(n, 1024, false) })
}

// The _thread variants lock the other side to its own OS thread: Go's nearest thing to a plain thread.

func pingpongThread(n int, _ options) result {
	return inPairs(n, 1, func(n int) int { return echo(n, true) })
}

func unbufferedThread(n int, _ options) result {
	return inPairs(n, 1, func(n int) int { return stream(n, 0, true) })
}

func bufferedThread(n int, _ options) result {
	return inPairs(n, 1, func(n int) int { return stream(n, 1024, true) })
}

// mpmc is 4 producers and 4 consumers on one channel of capacity 128.
func mpmc(n int, _ options) result {
	each := n / 4
	ch := make(chan int, 128)
	var producers, consumers sync.WaitGroup
	var total atomic.Int64
	start := time.Now()
	for p := 0; p < 4; p++ {
		producers.Add(1)
		go func() {
			for i := 0; i < each; i++ {
				ch <- i
			}
			producers.Done()
		}()
		consumers.Add(1)
		go func() {
			sum := 0
			for v := range ch {
				sum += v
			}
			total.Add(int64(sum))
			consumers.Done()
		}()
	}
	producers.Wait()
	close(ch)
	consumers.Wait()
	return result{elapsed: time.Since(start), items: 4 * each, lost: lost(int(total.Load()), 4*sumBelow(each))}
}

// select2 is one consumer selecting over two unbuffered channels fed by two producers.
func select2(n int, _ options) result {
	each := n / 2
	a, b := make(chan int), make(chan int)
	start := time.Now()
	for _, ch := range []chan int{a, b} {
		go func(ch chan int) {
			for i := 0; i < each; i++ {
				ch <- i
			}
		}(ch)
	}
	sum := 0
	for i := 0; i < 2*each; i++ {
		select {
		case v := <-a:
			sum += v
		case v := <-b:
			sum += v
		}
	}
	return result{elapsed: time.Since(start), items: 2 * each, lost: lost(sum, 2*sumBelow(each))}
}

// selectEmpty is a select with default over two empty channels.
func selectEmpty(n int, _ options) result {
	a, b := make(chan int), make(chan int)
	idle := 0
	start := time.Now()
	for i := 0; i < n; i++ {
		select {
		case <-a:
		case <-b:
		default:
			idle++
		}
	}
	return result{elapsed: time.Since(start), items: n, lost: lost(idle, n)}
}

// mutex is 8 goroutines adding to one counter under one lock.
func mutex(n int, _ options) result {
	each := n / 8
	var lock sync.Mutex
	var group sync.WaitGroup
	count := 0
	start := time.Now()
	for g := 0; g < 8; g++ {
		group.Add(1)
		go func() {
			for i := 0; i < each; i++ {
				lock.Lock()
				count++
				lock.Unlock()
			}
			group.Done()
		}()
	}
	group.Wait()
	return result{elapsed: time.Since(start), items: 8 * each, lost: lost(count, 8*each)}
}
