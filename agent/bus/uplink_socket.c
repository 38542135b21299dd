/* SPDX-License-Identifier: Apache-2.0 */
/* nanomsg's raw REQ socket. Courier, loop thread; the library has a worker thread of its own. */
#include "bus/uplink_socket.h"

#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <string.h>

void uplink_socket_close(struct uplink_socket *s)
{
	s->read_watch = loop_remove(s->read_watch);
	s->write_watch = loop_remove(s->write_watch);
	if (s->socket >= 0)
		nn_close(s->socket);
	s->socket = -1;
}

static int set_option(int socket, int option, int value)
{
	return nn_setsockopt(socket, NN_SOL_SOCKET, option, &value, sizeof(value)) < 0 ? -nn_errno()
										       : 0;
}

static int watch_fd(struct uplink_socket *s, struct loop *loop, int option, loop_fd_fn fn,
		    unsigned int events, void *data, struct loop_watch **ret)
{
	int fd;
	size_t size = sizeof(fd);

	if (nn_getsockopt(s->socket, NN_SOL_SOCKET, option, &fd, &size) < 0)
		return -nn_errno();
	return loop_add_fd(loop, fd, events, fn, data, ret);
}

int uplink_socket_open(struct uplink_socket *s, struct loop *loop, const char *address,
		       int least_ms, int most_ms, loop_fd_fn on_readable, loop_fd_fn on_writable,
		       void *data, struct err *e)
{
	int r;

	*s = (struct uplink_socket){.socket = nn_socket(AF_SP_RAW, NN_REQ)};
	if (s->socket < 0)
		return err_set(e, -nn_errno(), "uplink: cannot open a socket: %s",
			       nn_strerror(nn_errno()));
	if ((r = set_option(s->socket, NN_RECONNECT_IVL, least_ms)) < 0 ||
	    (r = set_option(s->socket, NN_RECONNECT_IVL_MAX, most_ms)) < 0) {
		uplink_socket_close(s);
		return err_set(e, r, "uplink: cannot set an option: %s", nn_strerror(-r));
	}
	if (nn_connect(s->socket, address) < 0) {
		r = -nn_errno();
		uplink_socket_close(s);
		return err_set(e, r, "uplink: \"%s\" is no address: %s", address, nn_strerror(-r));
	}
	r = watch_fd(s, loop, NN_RCVFD, on_readable, LOOP_READ, data, &s->read_watch);
	if (r == 0) /* readable when a message can be sent */
		r = watch_fd(s, loop, NN_SNDFD, on_writable, 0, data, &s->write_watch);
	if (r < 0) {
		uplink_socket_close(s);
		return err_set(e, r, "uplink: cannot watch a socket: %s", err_text(r));
	}
	return 0;
}

void uplink_socket_want_write(struct uplink_socket *s, bool is_wanted)
{
	loop_set_events(s->write_watch, is_wanted ? LOOP_READ : 0);
}

int uplink_socket_send(struct uplink_socket *s, uint32_t id, uint8_t *data, size_t size)
{
	uint8_t control[NN_CMSG_SPACE(sizeof(size_t) + sizeof(uint32_t))] = {0};
	struct nn_iovec iov = {.iov_base = data, .iov_len = size};
	struct nn_msghdr header = {.msg_iov = &iov,
				   .msg_iovlen = 1,
				   .msg_control = control,
				   .msg_controllen = sizeof(control)};
	struct nn_cmsghdr *c = NN_CMSG_FIRSTHDR(&header);
	const size_t id_size = sizeof(uint32_t);
	uint8_t wire[4] = {(uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8),
			   (uint8_t)id};

	c->cmsg_len = NN_CMSG_LEN(sizeof(size_t) + sizeof(wire));
	c->cmsg_level = PROTO_SP;
	c->cmsg_type = SP_HDR;
	memcpy(NN_CMSG_DATA(c), &id_size, sizeof(id_size));
	memcpy(NN_CMSG_DATA(c) + sizeof(id_size), wire, sizeof(wire));
	return nn_sendmsg(s->socket, &header, NN_DONTWAIT) < 0 ? -nn_errno() : 0;
}

int uplink_socket_receive(struct uplink_socket *s, void **ret_message, uint32_t *ret_id)
{
	uint8_t control[256] = {0};
	struct nn_iovec iov = {.iov_base = ret_message, .iov_len = NN_MSG};
	struct nn_msghdr header = {.msg_iov = &iov,
				   .msg_iovlen = 1,
				   .msg_control = control,
				   .msg_controllen = sizeof(control)};
	struct nn_cmsghdr *c;
	int n;

	*ret_id = 0;
	n = nn_recvmsg(s->socket, &header, NN_DONTWAIT);
	if (n < 0)
		return -nn_errno();
	/* The library writes one header and leaves the rest (and msg_controllen) as it was: walking
	 * on with NN_CMSG_NXTHDR never ends. */
	c = NN_CMSG_FIRSTHDR(&header);
	if (c && c->cmsg_level == PROTO_SP && c->cmsg_type == SP_HDR) {
		const uint8_t *p = NN_CMSG_DATA(c);
		size_t size;

		memcpy(&size, p, sizeof(size));
		p += sizeof(size);
		if (size == sizeof(uint32_t))
			*ret_id = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
				  (uint32_t)p[2] << 8 | p[3];
	}
	return n;
}

void uplink_socket_free(void *message)
{
	nn_freemsg(message);
}
