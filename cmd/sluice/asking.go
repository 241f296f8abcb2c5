package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"sluice/api"
)

// asking are the flags of commands that ask a server once and print what it answers. They do not
// try again.
type asking struct {
	remote
	Patience time.Duration `default:"${patience}" help:"How long to wait while nothing comes of an answer."`
}

// How long asking waits where it is not told: what works on everybody's sessions may have much to
// do.
const (
	patience     = "30s"
	longPatience = "10m"
)

// client makes the client that the flags ask for.
func (a asking) client() (*api.Client, error) {
	if a.Patience <= 0 {
		return nil, usageError("--patience must be more than 0")
	}
	hc := newHTTPClient()
	hc.Transport = &impatient{hc.Transport, a.Patience}
	return a.clientOver(hc)
}

// impatient ends a request of which nothing comes back for a while.
type impatient struct {
	to    http.RoundTripper
	still time.Duration
}

// RoundTrip implements http.RoundTripper.
func (i *impatient) RoundTrip(r *http.Request) (*http.Response, error) {
	silent := fmt.Errorf("the server does not answer: nothing has come for %s", i.still)
	ctx, cancel := context.WithCancelCause(r.Context())
	watch := time.AfterFunc(i.still, func() { cancel(silent) })
	res, err := i.to.RoundTrip(r.WithContext(ctx))
	if err != nil {
		watch.Stop()
		if errors.Is(context.Cause(ctx), silent) {
			err = silent
		}
		cancel(nil)
		return nil, err
	}
	res.Body = &awaited{watched: watched{res.Body, watch, i.still}, body: res.Body, ctx: ctx, cancel: cancel}
	return res, nil
}

// awaited is a body that says why it was cut.
type awaited struct {
	watched
	body   io.Closer
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// Read implements io.Reader.
func (a *awaited) Read(p []byte) (int, error) {
	n, err := a.watched.Read(p)
	if err != nil && err != io.EOF && a.ctx.Err() != nil {
		err = context.Cause(a.ctx)
	}
	return n, err
}

// Close implements io.Closer.
func (a *awaited) Close() error {
	err := a.body.Close()
	a.watch.Stop()
	a.cancel(nil)
	return err
}
