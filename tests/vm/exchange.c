/*
 * Two programs that know nothing of traces, for tests/vm/run. The server keeps the bytes of each head that it gets
 * and answers with the `traceparent` that stood in it, as a service with an SDK would go on with; the client asks,
 * reads no more than ioctl(FIONREAD) promises, as some programs do, and prints what it was answered.
 *
 *	exchange serve PORT FILE		until it is killed
 *	exchange ask PORT COUNT PAUSE_MS	COUNT requests on one connection
 *	exchange fetch METHOD PORT PATH		prints the body of an answer (busybox's wget does not run when it is static)
 *
 * A request is `whole` (in one write), `split` (its head in two), `own` (with a context of its own), `body` (whole,
 * and a body behind it in the same write), or `pieces` (whole; its answer comes in pieces, and is read a few bytes at a time
 * by a socket that does not wait, as event loops have them).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STALLED_MS 5000
#define BETWEEN_PIECES_US 20000

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in loopback(const char *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

static void write_all(int descriptor, const char *bytes, size_t count)
{
	/* In one go, or it is a mistake: what a write returns is part of what is tested. */
	if (write(descriptor, bytes, count) != (ssize_t)count)
		fail("write");
}

/* Reads a head and whatever body it announces; 0 at the end of the stream. */
static size_t read_message(int descriptor, char *text, size_t room)
{
	size_t have = 0;

	for (;;) {
		ssize_t count = read(descriptor, text + have, room - have - 1);
		char *end, *length;

		if (count <= 0)
			return 0;
		have += (size_t)count;
		text[have] = 0;
		end = strstr(text, "\r\n\r\n");
		if (!end)
			continue;
		length = strcasestr(text, "content-length:");
		if (have >=
		    (size_t)(end + 4 - text) + (length && length < end ? strtoul(length + 15, NULL, 10) : 0))
			return have;
	}
}

static void answer(int descriptor, int file)
{
	static char text[1 << 16];
	size_t bytes;

	while ((bytes = read_message(descriptor, text, sizeof(text)))) {
		char value[128] = "-", response[512], *found;
		size_t length, piece, at = 0;

		if (write(file, text, bytes) < 0)
			fail("write of what came");
		found = strcasestr(text, "\r\ntraceparent: ");
		if (found)
			sscanf(found + 15, "%127[^\r]", value);
		length = (size_t)snprintf(response, sizeof(response),
					  "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(value),
					  value);
		piece = strncmp(text, "POST /pieces/", 13) ? length : length / 4;
		while (at < length) {
			if (at)
				usleep(BETWEEN_PIECES_US);
			piece = piece < length - at ? piece : length - at;
			write_all(descriptor, response + at, piece);
			at += piece;
		}
	}
	exit(0);
}

static void serve(const char *port, const char *path)
{
	struct sockaddr_in address = loopback(port);
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	int file = open(path, O_CREAT | O_TRUNC | O_APPEND | O_WRONLY, 0644);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (file < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 16))
		fail("listen");
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int connection = accept(listener, NULL, NULL);

		if (connection < 0)
			fail("accept");
		if (!fork())
			answer(connection, file);
		close(connection);
	}
}

/* The body of a response that has come, if all of it has. */
static char *whole_body(char *text, size_t have)
{
	char *end, *length;

	text[have] = 0;
	end = strstr(text, "\r\n\r\n");
	length = strcasestr(text, "content-length:");
	if (end && length && have >= (size_t)(end + 4 - text) + strtoul(length + 15, NULL, 10))
		return end + 4;
	return NULL;
}

/* Reads one response, only ever as much as FIONREAD says is there. */
static void read_answer(int descriptor, char *text, size_t room)
{
	size_t have = 0;
	int waited_ms = 0;

	for (;;) {
		int readable = 0;
		char *body;

		if (ioctl(descriptor, FIONREAD, &readable))
			fail("FIONREAD");
		if (!readable) {
			if (waited_ms++ > STALLED_MS) {
				printf("stalled\n");
				exit(1);
			}
			usleep(1000);
			continue;
		}
		if ((size_t)readable > room - have - 1 ||
		    read(descriptor, text + have, (size_t)readable) != readable)
			fail("read");
		have += (size_t)readable;
		body = whole_body(text, have);
		if (body) {
			memmove(text, body, strlen(body) + 1);
			return;
		}
	}
}

/* Reads one response from a socket that does not wait, until it says that there is no more. */
static void read_pieces(int descriptor, char *text, size_t room)
{
	struct pollfd poll_for = {.fd = descriptor, .events = POLLIN};
	size_t have = 0;
	char *body;

	if (fcntl(descriptor, F_SETFL, O_NONBLOCK))
		fail("O_NONBLOCK");
	while (!(body = whole_body(text, have))) {
		ssize_t count;

		if (poll(&poll_for, 1, STALLED_MS) != 1) {
			printf("stalled\n");
			exit(1);
		}
		while ((count = read(descriptor, text + have, room - have - 1 < 7 ? room - have - 1 : 7)) > 0)
			have += (size_t)count;
		if (count == 0 || errno != EAGAIN)
			fail("read of a piece");
	}
	memmove(text, body, strlen(body) + 1);
	if (fcntl(descriptor, F_SETFL, 0))
		fail("O_NONBLOCK");
}

static void ask(const char *port, int requests, int pause_ms)
{
	static const char *const kinds[] = {"whole", "split", "own", "body", "pieces"};
	struct sockaddr_in address = loopback(port);
	int descriptor = socket(AF_INET, SOCK_STREAM, 0), one = 1, request;

	if (connect(descriptor, (struct sockaddr *)&address, sizeof(address)))
		fail("connect");
	setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (request = 0; request < requests; request++) {
		const char *kind = kinds[request % 5];
		char text[4096], own[128] = "", body[257] = "";
		int bytes;

		if (!strcmp(kind, "own"))
			snprintf(own, sizeof(own), "traceparent: 00-%032x-%016x-01\r\n", request + 1,
				 request + 1);
		if (!strcmp(kind, "body"))
			memset(body, 'b', sizeof(body) - 1);
		bytes = snprintf(text, sizeof(text),
				 "POST /%s/%d HTTP/1.1\r\nHost: vm\r\n%sContent-Length: %zu\r\n\r\n%s", kind,
				 request, own, strlen(body), body);
		if (!strcmp(kind, "split")) {
			write_all(descriptor, text, 30);
			write_all(descriptor, text + 30, (size_t)bytes - 30);
		} else {
			write_all(descriptor, text, (size_t)bytes);
		}
		(strcmp(kind, "pieces") ? read_answer : read_pieces)(descriptor, text, sizeof(text));
		printf("answer %d %s %s\n", request, kind, text);
		fflush(stdout);
		usleep((useconds_t)pause_ms * 1000);
	}
	printf("all answered\n");
}

static int fetch(const char *method, const char *port, const char *path)
{
	struct sockaddr_in address = loopback(port);
	int descriptor = socket(AF_INET, SOCK_STREAM, 0);
	static char text[1 << 22];
	size_t have = 0;
	ssize_t count;
	char *body;

	if (connect(descriptor, (struct sockaddr *)&address, sizeof(address)))
		fail("connect");
	/* Of version 1.0, so that the answer is not cut into chunks. */
	write_all(descriptor, text,
		  (size_t)snprintf(text, sizeof(text),
				   "%s %s HTTP/1.0\r\nHost: 127.0.0.1:%s\r\nContent-Length: 0\r\n\r\n",
				   method, path, port));
	while ((count = read(descriptor, text + have, sizeof(text) - have - 1)) > 0)
		have += (size_t)count;
	text[have] = 0;
	body = strstr(text, "\r\n\r\n");
	if (body)
		fputs(body + 4, stdout);
	return !strstr(text, " 200 ");
}

int main(int count, char **arguments)
{
	if (count == 4 && !strcmp(arguments[1], "serve"))
		serve(arguments[2], arguments[3]);
	if (count == 5 && !strcmp(arguments[1], "ask")) {
		ask(arguments[2], atoi(arguments[3]), atoi(arguments[4]));
		return 0;
	}
	if (count == 5 && !strcmp(arguments[1], "fetch"))
		return fetch(arguments[2], arguments[3], arguments[4]);
	fprintf(stderr, "exchange serve PORT FILE | ask PORT COUNT PAUSE_MS | fetch METHOD PORT PATH\n");
	return 2;
}
