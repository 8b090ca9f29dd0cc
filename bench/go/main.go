// The workloads of the benchmarks, in Go: `goslings-bench WORKLOAD N [-alive K] [-pairs P]`.
//
// Each function has the shape of its namesake in bench/impl/on_goslings.py and prints one JSON
// line like it. The number of processors is Go's own GOMAXPROCS environment variable.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"time"
)

// result is what a workload reports: the time of n items, values lost, and extra columns.
type result struct {
	elapsed time.Duration
	items   int
	lost    int
	extra   map[string]float64
}

// options are the parts of the command line that only some workloads read.
type options struct {
	alive int // other goroutines, parked, that exist meanwhile
	pairs int // pairs that run at the same time
}

var workloads = map[string]func(n int, opt options) result{
	"spawn":             spawn,
	"pingpong":          pingpong,
	"unbuffered":        unbuffered,
	"buffered":          buffered,
	"mpmc":              mpmc,
	"select2":           select2,
	"select_empty":      selectEmpty,
	"chain":             chain,
	"parked":            parked,
	"mutex":             mutex,
	"sieve":             sieve,
	"timer":             timer,
	"cpu":               cpu,
	"pingpong_thread":   pingpongThread,
	"unbuffered_thread": unbufferedThread,
	"buffered_thread":   bufferedThread,
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--probe" {
		printJSON(map[string]any{"library": "go", "version": runtime.Version(), "workloads": names()})
		return
	}
	if len(os.Args) < 3 {
		fmt.Fprintf(os.Stderr, "usage: %s WORKLOAD N [-alive K] [-pairs P]\nworkloads: %v\n", os.Args[0], names())
		os.Exit(2)
	}
	name := os.Args[1]
	n, err := strconv.Atoi(os.Args[2])
	if err != nil || n < 1 {
		fmt.Fprintf(os.Stderr, "N must be a positive number, not %q\n", os.Args[2])
		os.Exit(2)
	}
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	alive := flags.Int("alive", 0, "other goroutines, parked, that exist meanwhile")
	pairs := flags.Int("pairs", 1, "pairs that run at the same time")
	flags.Parse(os.Args[3:])
	run, ok := workloads[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "unknown workload %q; known: %v\n", name, names())
		os.Exit(2)
	}

	park(*alive)
	res := run(n, options{alive: *alive, pairs: *pairs})

	line := map[string]any{
		"workload":    name,
		"n":           n,
		"ns_per_item": float64(res.elapsed.Nanoseconds()) / float64(res.items),
		"lost":        res.lost,
		"procs":       runtime.GOMAXPROCS(0),
	}
	for key, value := range res.extra {
		line[key] = value
	}
	printJSON(line)
}

// park starts k goroutines that wait on a receive until the program ends.
func park(k int) {
	never := make(chan int)
	for i := 0; i < k; i++ {
		go func() { <-never }()
	}
	if k > 0 {
		time.Sleep(50 * time.Millisecond)
	}
}

func printJSON(line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func names() []string {
	all := []string{}
	for name := range workloads {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}

// sumBelow is 0 + 1 + … + (n-1): what a consumer must have added up.
func sumBelow(n int) int { return n * (n - 1) / 2 }

// lost is 0 when the sum is right, and 1 (some) when it is not.
func lost(got, want int) int {
	if got == want {
		return 0
	}
	return 1
}
