package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sluice/api"
	"sluice/session"
)

// slowBody is a body whose second part does not come before release.
type slowBody struct {
	first   io.Reader
	begun   func()
	release <-chan struct{}
}

func (b *slowBody) Read(p []byte) (int, error) {
	if n, err := b.first.Read(p); err == nil {
		return n, nil
	}
	b.begun()
	<-b.release
	return 0, errors.New("the test is over")
}

// A body or a download that runs on when its caller's right ends is ended too, although its client
// neither sends nor reads. Nothing of the body is stored.
func TestWhatRunsEndsWithTheRight(t *testing.T) {
	w := newWorld(t, nil)
	content := bytes.Repeat(random(64<<10), 256) // more than all buffers on the way take
	m := w.store("large", "", content)
	for name, end := range map[string]func(principal, token string){
		"the token is revoked": func(_, token string) { w.check(w.client.RevokeToken(t.Context(), token)) },
		"the principal is deleted": func(principal, _ string) {
			w.check(w.client.DeletePrincipal(t.Context(), principal))
		},
		"the role is taken away": func(string, string) { w.roles() },
	} {
		for protocol, tr := range map[string]*http.Transport{"1.1": {}, "2": overHTTP2(t)} {
			t.Run(name+" over HTTP/"+protocol, func(t *testing.T) {
				defer tr.CloseIdleConnections()
				w := w.in(t)
				principal, secret := w.join("runner", false)
				w.roles(principal)
				me := w.as(secret)
				who, err := me.WhoAmI(t.Context())
				w.check(err)
				s, err := me.Begin(t.Context(), api.BeginRequest{
					CapsuleID: "default", Meta: api.Meta{Name: "a", Bytes: ptr(int64(2 * chunk))},
				})
				w.check(err)
				var sent, ended sync.WaitGroup
				send := func(method, path string) {
					sent.Add(1)
					ended.Go(func() {
						release := make(chan struct{})
						defer close(release)
						body := &slowBody{bytes.NewReader(content[:1000]), sync.OnceFunc(sent.Done), release}
						ctx := context.WithoutCancel(t.Context())
						req, err := http.NewRequestWithContext(ctx, method, w.url+path, body)
						w.check(err)
						req.ContentLength = chunk
						req.Header.Set("Authorization", "Bearer "+secret)
						res, err := tr.RoundTrip(req)
						if err != nil {
							t.Errorf("%s: %v", path, err)
							return
						}
						defer func() { go res.Body.Close() }() // over HTTP/2 it waits for the request's body
						if res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusForbidden {
							b, _ := io.ReadAll(res.Body)
							t.Errorf("%s: %s %s", path, res.Status, b)
						}
					})
				}
				if !strings.Contains(name, "role") { // it decides about the record alone
					send("PUT", "/v1/uploads_put_chunk/"+s.SessionID+"/0")
					send("PUT", "/v1/uploads_put_range/"+s.SessionID+"/"+strconv.Itoa(chunk))
					send("PUT", "/v1/memories_create/b")
				}
				req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+m.ContentURL, nil)
				w.check(err)
				req.Header.Set("Authorization", "Bearer "+secret)
				res, err := tr.RoundTrip(req)
				w.check(err)
				defer res.Body.Close()
				if res.StatusCode != http.StatusOK {
					t.Fatal(res.Status)
				}
				sent.Wait()
				end(principal, who.TokenID)
				ended.Wait()
				// The server has cut the answer off: it can't be read to its end.
				w.until("all requests to end", func() bool {
					slots, _ := w.server.Held()
					return slots == 0
				})
				if n, err := io.Copy(io.Discard, res.Body); err == nil {
					t.Errorf("all of %d bytes could be read", n)
				}
				id, err := session.ParseID(s.SessionID)
				w.check(err)
				if s, err := w.sessions.Status(t.Context(), id); err == nil && s.Bytes() > 0 {
					t.Errorf("%d bytes are recorded", s.Bytes())
				}
				if a := w.do("GET", "/v1/memories_list?name=b", ""); string(a.body) != `{"memories":[]}` {
					t.Errorf("it is stored: %s", a.body)
				}
			})
		}
	}
}

// roles makes these the controllers of capsule default.
func (w *world) roles(controllers ...string) {
	w.t.Helper()
	if controllers == nil {
		controllers = []string{}
	}
	_, err := w.client.UpdateCapsule(w.t.Context(), api.UpdateCapsuleRequest{
		CapsuleID: "default", Controllers: &controllers,
	})
	w.check(err)
}
