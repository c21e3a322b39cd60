/*
 * Asks a server over HTTP/1.1, from one thread, and prints one line of JSON: what came of it and how long
 * it took.
 *
 *   driver ADDRESS PORT PATH [requests=N] [seconds=S] [connections=C] [rate=R] [first=N] [traceparent]
 *
 * PATH has `{id}` where the number of the request stands, from `first` on. Without a rate the loop is
 * closed: each connection asks again as soon as it is answered. With one it is open: requests are due at
 * fixed moments, wait for a free connection, and their latency counts from the moment at which they were due,
 * so that a server that stalls cannot hide what it did to those behind (Gil Tene's "coordinated omission").
 * `traceparent` sends W3C Trace Context: trace id `…0001` + number, span id the number with its highest bit set.
 *
 * Responses need Content-Length or chunks. A connection that the server closes is made anew.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES 65536
#define NS_PER_S 1000000000ULL

struct connection {
	int descriptor;
	bool is_busy;
	bool is_fresh; /* nothing has been answered on it */
	uint64_t number;
	uint64_t due_ns;
	size_t have_bytes;
	char buffer[BUFFER_BYTES];
};

static struct sockaddr_in server;
static const char *path_before, *path_after;
static bool sends_traceparent;
static struct connection *connections;
static int epoll;
static uint64_t *latencies_ns;
static uint64_t answered, refused, failed, reconnected, latency_capacity;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void connect_to_server(struct connection *connection)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
	int one = 1;

	connection->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection->descriptor < 0)
		fail("socket");
	if (connect(connection->descriptor, (struct sockaddr *)&server, sizeof(server)))
		fail("connect");
	setsockopt(connection->descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->descriptor, &event))
		fail("epoll_ctl");
	connection->is_fresh = true;
	connection->have_bytes = 0;
}

static void send_request(struct connection *connection)
{
	char request[1024];
	int length;

	length = snprintf(request, sizeof(request), "GET %s%" PRIu64 "%s HTTP/1.1\r\nHost: oracle\r\n",
			  path_before, connection->number, path_after);
	if (sends_traceparent)
		length += snprintf(request + length, sizeof(request) - (size_t)length,
				   "traceparent: 00-%016x%016" PRIx64 "-%016" PRIx64 "-01\r\n", 1,
				   connection->number + 1, connection->number | (uint64_t)1 << 63);
	length += snprintf(request + length, sizeof(request) - (size_t)length, "\r\n");
	connection->is_busy = true;
	connection->have_bytes = 0;
	/* A request is far smaller than a send buffer: it is taken whole, or the connection is no more, which
	 * the next read tells. */
	if (send(connection->descriptor, request, (size_t)length, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
	    errno != ECONNRESET)
		fail("send");
}

/* The length of the response's body with what frames it, or -1 if it is not complete yet. */
static bool is_complete(const struct connection *connection, int *status, bool *closes)
{
	const char *end = memmem(connection->buffer, connection->have_bytes, "\r\n\r\n", 4), *field;
	size_t head_bytes;

	if (!end)
		return false;
	head_bytes = (size_t)(end - connection->buffer) + 4;
	*status = atoi(connection->buffer + sizeof("HTTP/1.1"));
	*closes = strcasestr(connection->buffer, "\r\nConnection: close") != NULL &&
		  strcasestr(connection->buffer, "\r\nConnection: close") < end;
	field = strcasestr(connection->buffer, "\r\nContent-Length:");
	if (field && field < end)
		return connection->have_bytes >= head_bytes + strtoull(field + 17, NULL, 10);
	return connection->have_bytes >= head_bytes + 5 &&
	       !memcmp(connection->buffer + connection->have_bytes - 5, "0\r\n\r\n", 5);
}

static void reconnect(struct connection *connection)
{
	close(connection->descriptor);
	reconnected++;
	connect_to_server(connection);
}

static void receive(struct connection *connection)
{
	ssize_t got = recv(connection->descriptor, connection->buffer + connection->have_bytes,
			   BUFFER_BYTES - 1 - connection->have_bytes, MSG_DONTWAIT);
	bool closes = false;
	int status = 0;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		bool was_fresh = connection->is_fresh, was_busy = connection->is_busy;

		reconnect(connection);
		if (was_busy && !was_fresh && !connection->have_bytes)
			/* It was closed while the request was on its way: every client asks again. */
			send_request(connection);
		else if (was_busy) {
			failed++;
			connection->is_busy = false;
		}
		return;
	}
	connection->have_bytes += (size_t)got;
	connection->buffer[connection->have_bytes] = 0;
	if (!connection->is_busy || !is_complete(connection, &status, &closes)) {
		if (connection->have_bytes == BUFFER_BYTES - 1)
			fail("a response is too long");
		return;
	}
	connection->is_busy = false;
	connection->is_fresh = false;
	if (status != 200)
		refused++;
	else if (answered < latency_capacity)
		latencies_ns[answered++] = now_ns() - connection->due_ns;
	if (closes)
		reconnect(connection);
}

static int compare(const void *left, const void *right)
{
	uint64_t one = *(const uint64_t *)left, other = *(const uint64_t *)right;

	return (one > other) - (one < other);
}

static double percentile_us(double share)
{
	uint64_t index = (uint64_t)(share * (double)answered);

	return answered ? (double)latencies_ns[index < answered ? index : answered - 1] / 1000.0 : 0.0;
}

static double option(const char *argument, const char *name, double otherwise)
{
	size_t length = strlen(name);

	return !strncmp(argument, name, length) && argument[length] == '=' ? atof(argument + length + 1)
									   : otherwise;
}

int main(int count, char **arguments)
{
	double requests = 1e18, seconds = 1e9, connection_count = 1, rate = 0, first = 0;
	uint64_t total, sent = 0, start_ns, end_ns, deadline_ns;
	size_t open, index;
	struct rusage usage;
	char *path, *id;

	if (count < 4) {
		fprintf(stderr,
			"usage: driver ADDRESS PORT PATH [requests=N] [seconds=S] [connections=C] [rate=R] "
			"[first=N] [traceparent]\n");
		return 2;
	}
	for (int i = 4; i < count; i++) {
		requests = option(arguments[i], "requests", requests);
		seconds = option(arguments[i], "seconds", seconds);
		connection_count = option(arguments[i], "connections", connection_count);
		rate = option(arguments[i], "rate", rate);
		first = option(arguments[i], "first", first);
		sends_traceparent = sends_traceparent || !strcmp(arguments[i], "traceparent");
	}
	path = strdup(arguments[3]);
	id = strstr(path, "{id}");
	if (!id) {
		fprintf(stderr, "driver: there is no {id} in %s\n", path);
		return 2;
	}
	*id = 0;
	path_before = path;
	path_after = id + 4;
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)atoi(arguments[2]));
	if (inet_pton(AF_INET, arguments[1], &server.sin_addr) != 1)
		fail(arguments[1]);
	/* The default slack of 50 us would be added to each wait. */
	prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	open = (size_t)connection_count;
	connections = calloc(open, sizeof(*connections));
	total = requests < 1e17 ? (uint64_t)requests : rate > 0 ? (uint64_t)(rate * seconds) : 1ULL << 62;
	latency_capacity = total < 1ULL << 26 ? total : 1ULL << 26;
	latencies_ns = malloc(latency_capacity * sizeof(*latencies_ns));
	if (epoll < 0 || !connections || !latencies_ns)
		fail("memory");
	for (index = 0; index < open; index++)
		connect_to_server(&connections[index]);

	start_ns = now_ns();
	deadline_ns = start_ns + (uint64_t)(seconds * 1e9);
	for (;;) {
		struct epoll_event events[64];
		struct timespec wait = {.tv_sec = 1};
		uint64_t now = now_ns(), busy = 0;
		int ready;

		for (index = 0; index < open; index++) {
			struct connection *connection = &connections[index];
			uint64_t due_ns = rate > 0 ? start_ns + (uint64_t)((double)sent * 1e9 / rate) : now;

			if (!connection->is_busy && sent < total && due_ns <= now && now < deadline_ns) {
				connection->number = (uint64_t)first + sent++;
				connection->due_ns = due_ns;
				send_request(connection);
			}
			busy += connection->is_busy;
		}
		if (!busy && (sent >= total || now >= deadline_ns))
			break;
		if (rate > 0 && busy < open && sent < total) {
			uint64_t due_ns = start_ns + (uint64_t)((double)sent * 1e9 / rate);
			uint64_t wait_ns;

			now = now_ns();
			wait_ns = due_ns > now ? due_ns - now : 0;
			wait.tv_sec = (time_t)(wait_ns / NS_PER_S);
			wait.tv_nsec = (long)(wait_ns % NS_PER_S);
		}
		ready = epoll_pwait2(epoll, events, 64, &wait, NULL);
		if (ready < 0 && errno != EINTR)
			fail("epoll_pwait2");
		for (int i = 0; i < ready; i++)
			receive(events[i].data.ptr);
		/* A server that answers nobody for ten seconds more is stuck. */
		if (!ready && now_ns() > deadline_ns + 10 * NS_PER_S && seconds < 1e9) {
			failed += busy;
			break;
		}
	}
	end_ns = now_ns();
	qsort(latencies_ns, answered, sizeof(*latencies_ns), compare);
	getrusage(RUSAGE_SELF, &usage);
	printf("{\"sent\":%" PRIu64 ",\"answered\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"failed\":%" PRIu64
	       ",\"reconnected\":%" PRIu64
	       ",\"seconds\":%.3f,\"per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
	       "\"p999_us\":%.1f,\"max_us\":%.1f,\"cpu_s\":%.3f}\n",
	       sent, answered, refused, failed, reconnected, (double)(end_ns - start_ns) / 1e9,
	       (double)answered * 1e9 / (double)(end_ns - start_ns), percentile_us(0.5), percentile_us(0.99),
	       percentile_us(0.999), percentile_us(1.0),
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	return 0;
}
