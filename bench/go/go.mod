module goslings-bench

go 1.21
