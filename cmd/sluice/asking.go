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

// asking has the flags of commands that send one request and print the response. They do not try
// again.
type asking struct {
	remote
	Patience time.Duration `default:"${patience}" help:"How long to wait while nothing comes of an answer."`
}

// The defaults of --patience. Operations on the sessions of all principals may have much to do.
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

// impatient ends a request when no byte of its response has come for a while.
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

// awaited is the body of a response. Its Read says why the request was ended.
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
