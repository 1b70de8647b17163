module github.com/xtipc/xtipc/shm-api/go

go 1.19
