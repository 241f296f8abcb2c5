package main

import (
	"net/netip"

	"sluice/api"
)

// proxy is a value of --trusted-proxy.
type proxy struct{ netip.Prefix }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *proxy) UnmarshalText(text []byte) (err error) {
	p.Prefix, err = api.ParseProxy(string(text))
	return err
}

// origin is a value of --cors-origin.
type origin string

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *origin) UnmarshalText(text []byte) error {
	s, err := api.ParseOrigin(string(text))
	*o = origin(s)
	return err
}

func (c *serveCmd) proxies() (out []netip.Prefix) {
	for _, p := range c.TrustedProxy {
		out = append(out, p.Prefix)
	}
	return out
}

func (c *serveCmd) origins() (out []string) {
	for _, o := range c.CORSOrigin {
		out = append(out, string(o))
	}
	return out
}

func isRate(n int64) bool { return n >= 0 && n <= api.MaxRate }
