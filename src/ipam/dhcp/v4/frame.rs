//! What carries messages: IPv4 and UDP (RFC 791, RFC 768), and ARP (RFC 826, RFC 5227), without the link layer's
//! header, which the kernel reads and writes (packet(7), `SOCK_DGRAM`).
