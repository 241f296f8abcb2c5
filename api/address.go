package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// proxies are the peers that say truly from whom a request comes.
type proxies []netip.Prefix

// ParseProxy reads a trusted proxy: an address, or a network like 10.0.0.0/8. An IPv4 address that
// is written as IPv6 (::ffff:10.0.0.1) means the IPv4 one.
func ParseProxy(s string) (netip.Prefix, error) {
	fail := func(why string) (netip.Prefix, error) {
		return netip.Prefix{}, fmt.Errorf("%q is no trusted proxy: %s", s, why)
	}
	const form = "it must be an address or a network, like 10.0.0.7, 10.0.0.0/8 or fd00::/8"
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return fail(form)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fail(form)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return fail(form)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	switch {
	case p.Bits() == 0:
		return fail("it names every address, so everybody could say to be anybody")
	case p != p.Masked():
		return fail(fmt.Sprintf("write %s for the network, or %s for the one address", p.Masked(), p.Addr()))
	}
	return p, nil
}

func (p proxies) trusts(addr netip.Addr) bool {
	for _, network := range p {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// client returns the address that a request comes from: the peer's, unless the peer is a trusted
// proxy. Then it is the last address of X-Forwarded-For, or of Forwarded (RFC 7239), that is not a
// trusted proxy itself: each proxy adds its own peer at the end, and whatever is before the first
// address that no trusted proxy has added may be a lie. An entry that is no address ends the way
// there, and the last address before it counts. The zero Addr is a peer that has none.
//
// A proxy writes one of the two fields and passes the other one on. Where both are there and don't
// agree, one of them is the client's, and the peer counts.
func (p proxies) client(r *http.Request) netip.Addr {
	peer := peerOf(r.RemoteAddr)
	if len(p) == 0 || !p.trusts(peer) {
		return peer
	}
	list, elements := r.Header["X-Forwarded-For"], r.Header["Forwarded"]
	switch {
	case len(elements) == 0:
		return p.walk(peer, list, lastOfList)
	case len(list) == 0:
		return p.walk(peer, elements, lastElement)
	}
	client := p.walk(peer, list, lastOfList)
	if client != p.walk(peer, elements, lastElement) {
		return peer
	}
	return client
}

// walk goes from the peer back to the client. last splits the last entry off a line: its address,
// what is before it, and whether there is more before it.
func (p proxies) walk(
	peer netip.Addr, lines []string, last func(line string) (addr netip.Addr, rest string, more bool),
) netip.Addr {
	client := peer
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var addr netip.Addr
			if addr, rest, more = last(rest); !addr.IsValid() {
				return client
			}
			if client = addr; !p.trusts(addr) {
				return client
			}
		}
	}
	return client
}

// lastOfList is for X-Forwarded-For.
func lastOfList(line string) (addr netip.Addr, rest string, more bool) {
	i := strings.LastIndexByte(line, ',')
	return hop(strings.Trim(line[i+1:], " \t")), line[:max(i, 0)], i >= 0
}

// lastElement is for Forwarded. It reads from the end, so that no quote that a client has left open
// covers what a proxy has added.
func lastElement(line string) (addr netip.Addr, rest string, more bool) {
	quoted, i := false, len(line)-1
	for ; i >= 0 && (quoted || line[i] != ','); i-- {
		quoted = quoted != (line[i] == '"')
	}
	if element := line[i+1:]; !quoted && !strings.Contains(element, `\`) {
		addr = forOf(element)
	}
	return addr, line[:max(i, 0)], i >= 0
}

// forOf returns the address that an element has under the name for. The zero Addr: there is none,
// or more than one.
func forOf(element string) (addr netip.Addr) {
	for found := false; element != ""; {
		end, quoted := 0, false
		for ; end < len(element) && (quoted || element[end] != ';'); end++ {
			quoted = quoted != (element[end] == '"')
		}
		name, value, _ := strings.Cut(element[:end], "=")
		element = element[min(end+1, len(element)):]
		if !strings.EqualFold(strings.Trim(name, " \t"), "for") {
			continue
		}
		if found {
			return netip.Addr{}
		}
		value = strings.Trim(value, " \t")
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		addr, found = hop(value), true
	}
	return addr
}

// hop reads an address that a proxy has written, with or without a port. The zero Addr: it is none.
func hop(s string) netip.Addr {
	addr, err := netip.ParseAddr(s)
	if err != nil && strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		addr, err = netip.ParseAddr(s[1 : len(s)-1])
	}
	if err != nil {
		var port netip.AddrPort
		port, err = netip.ParseAddrPort(s)
		addr = port.Addr()
	}
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// peerOf reads the address of a connection's other end.
func peerOf(remote string) netip.Addr {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil { // a Unix socket
		return netip.Addr{}
	}
	return peer.Addr().Unmap().WithZone("")
}
