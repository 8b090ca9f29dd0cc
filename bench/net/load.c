/* The load of the echo benchmark, the same for every server: so many connections, each of which sends a message, waits for
 * all of it to come back, and sends the next. One thread, epoll.
 *
 *     load PORT CONNECTIONS SECONDS BYTES
 *
 * Prints one line of JSON: requests, seconds, and the latency's percentiles in microseconds. With 0 SECONDS each connection
 * has one message echoed and is idle then, until standard input ends. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 2000000 };  /* microseconds */

struct connection {
    int fd;
    int got;
    uint64_t sent_ns;
};

static uint32_t histogram[BUCKETS + 1];

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void request(struct connection *connection, const char *message, int bytes) {
    connection->got = 0;
    connection->sent_ns = now_ns();
    if (send(connection->fd, message, (size_t)bytes, MSG_NOSIGNAL) != bytes) {
        die("send");
    }
}

static double percentile(uint64_t count, double share) {
    uint64_t seen = 0;
    for (int bucket = 0; bucket <= BUCKETS; bucket++) {
        seen += histogram[bucket];
        if (seen > 0 && seen >= (uint64_t)((double)count * share)) {
            return bucket;
        }
    }
    return BUCKETS;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "load PORT CONNECTIONS SECONDS BYTES\n");
        return 2;
    }
    int port = atoi(argv[1]), count = atoi(argv[2]), bytes = atoi(argv[4]);
    double seconds = atof(argv[3]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    char *message = malloc((size_t)bytes), *room = malloc((size_t)bytes);
    int poller = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || message == NULL || room == NULL || poller < 0) {
        die("start");
    }
    memset(message, 'x', (size_t)bytes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < count; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
            die("connect");
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connections[i].fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) {
            die("epoll_ctl");
        }
    }
    if (seconds <= 0) {
        for (int i = 0; i < count; i++) {
            request(&connections[i], message, bytes);
            if (recv(connections[i].fd, room, (size_t)bytes, MSG_WAITALL) != bytes) {
                die("recv");
            }
        }
        printf("{\"connections\": %d}\n", count);
        fflush(stdout);
        char byte;
        return read(0, &byte, 1) < 0;
    }
    for (int i = 0; i < count; i++) {
        request(&connections[i], message, bytes);
    }
    /* A quarter more before it counts: servers warm up, and adapt. */
    uint64_t begin = now_ns() + (uint64_t)(seconds * 0.25e9), end = begin + (uint64_t)(seconds * 1e9), requests = 0;
    for (uint64_t now = now_ns(); now < end;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, 1000);
        if (ready < 0 && errno != EINTR) {
            die("epoll_wait");
        }
        for (int i = 0; i < ready; i++) {
            struct connection *connection = &connections[events[i].data.u32];
            ssize_t got = recv(connection->fd, room, (size_t)bytes, MSG_DONTWAIT);
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN) {
                    continue;
                }
                die("recv");
            }
            connection->got += (int)got;
            if (connection->got < bytes) {
                continue;
            }
            now = now_ns();
            if (now >= begin) {
                uint64_t us = (now - connection->sent_ns) / 1000;
                histogram[us > BUCKETS ? BUCKETS : us]++;
                requests++;
            }
            request(connection, message, bytes);
        }
        now = now_ns();
    }
    double took = (double)(now_ns() - begin) / 1e9;
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"p50_us\": %.0f, \"p99_us\": %.0f}\n", (unsigned long long)requests, took,
           percentile(requests, 0.5), percentile(requests, 0.99));
    return 0;
}
