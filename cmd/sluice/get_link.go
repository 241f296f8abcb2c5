package main

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"sluice/api"
)

// isLink reports whether the argument of get is the address of a read link.
func isLink(arg string) bool {
	return strings.HasPrefix(arg, "http://") || strings.HasPrefix(arg, "https://")
}

// splitLink gives the server of a read link, and the link as api.Client takes it.
func splitLink(arg string) (server, link string, err error) {
	const form = usageError("a read link is like https://HOST/r/SECRET, as sluice links create prints it")
	at := strings.LastIndex(arg, "/r/")
	u, err := url.Parse(arg)
	if at < 0 || err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil ||
		strings.HasSuffix(arg, "/r/") || at < strings.Index(arg, u.Host) {
		return "", "", form
	}
	return arg[:at], arg[at:], nil
}

// describe finds out what is to be fetched.
func (g *getter) describe() (m api.Memory, err error) {
	if g.link == "" {
		err = g.ask(func(ctx context.Context) (err error) {
			m, err = g.client.ReadMemory(ctx, g.c.ID)
			return err
		})
		return m, err
	}
	err = g.ask(func(ctx context.Context) (err error) {
		m, err = g.client.DescribeLink(ctx, g.link)
		return err
	})
	if m.Name == "" {
		m.Name = "download"
	}
	return m, g.ofLink(err)
}

// ofLink says what is missing, if the server answers that something is and a link was read.
func (g *getter) ofLink(err error) error {
	var refused *api.Error
	if g.link != "" && errors.As(err, &refused) && refused.Code == api.CodeNotFound {
		return &endedLink{err}
	}
	return err
}

// endedLink says what may have become of a link.
type endedLink struct{ error }

func (e *endedLink) Error() string {
	return e.error.Error() + "; the link has ended, its downloads are used up, or its memory is gone"
}

func (e *endedLink) Unwrap() error { return e.error }
