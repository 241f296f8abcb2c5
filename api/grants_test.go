package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/access"
	"sluice/api"
	"sluice/catalog"
)

// issue makes a ticket of capsule default for so many uploads of at most so many bytes, by a
// principal that has the role of a controller there.
func (w *world) issue(uploads, most int64) (maker, id string, with *api.Client) {
	w.t.Helper()
	maker, secret := w.join("maker", false)
	w.roles(maker)
	t, err := w.as(secret).CreateTicket(w.t.Context(), api.CreateTicketRequest{
		CapsuleID: "default", MaxBytes: most, Uploads: &uploads, ExpiresInSeconds: 3600,
	})
	w.check(err)
	return maker, t.TicketID, w.as(t.Secret)
}

// ticket gives the counts of a ticket.
func (w *world) counts(id string) (open, finished int64) {
	w.t.Helper()
	list, err := w.client.ListTickets(w.t.Context(), "default", "", 0)
	w.check(err)
	for _, t := range list.Tickets {
		if t.TicketID == id {
			return t.Open, t.Finished
		}
	}
	w.t.Fatalf("ticket %s is not among %+v", id, list.Tickets)
	return 0, 0
}

func beginOf(n int64, name string) api.BeginRequest {
	req := api.BeginRequest{CapsuleID: "default", Meta: api.Meta{Name: name}}
	if n >= 0 {
		req.Meta.Bytes = &n
	}
	return req
}

// With a ticket somebody without an account uploads into its capsule.
func TestATicketUploads(t *testing.T) {
	w := newWorld(t, nil)
	maker, id, c := w.issue(1, chunk+10)
	b := random(chunk + 10)
	s, err := c.Begin(t.Context(), beginOf(chunk+10, "a"))
	w.check(err)
	for i := range int64(2) {
		part := b[i*chunk : min((i+1)*chunk, int64(len(b)))]
		w.check(c.PutChunk(t.Context(), s.SessionID, i, bytes.NewReader(part), int64(len(part)), api.PutOptions{}))
	}
	if list, err := c.Uploads(t.Context(), "", 10); err != nil || len(list.Sessions) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	// What it takes counts for its maker.
	who, err := w.access.WhoAmI(t.Context(), w.callerOf(maker))
	w.check(err)
	if who.Usage.Sessions != 1 || who.Usage.Reserved != chunk+10 {
		t.Errorf("the maker uses %+v", who.Usage)
	}
	m, err := c.Finish(t.Context(), finishOf(s.SessionID, b))
	w.check(err)
	w.holds(m, b)
	if again, err := c.Finish(t.Context(), finishOf(s.SessionID, b)); err != nil || again.MemoryID != m.MemoryID {
		t.Errorf("%+v, %v", again, err)
	}
	if open, finished := w.counts(id); open != 0 || finished != 1 {
		t.Errorf("%d open, %d finished", open, finished)
	}
	_, err = c.Begin(t.Context(), beginOf(1, "b"))
	if e := w.codeIs(err, api.CodeQuotaExceeded); !strings.Contains(e.Detail, "1 uploads") {
		t.Error(e.Detail)
	}
	_, err = w.client.Begin(t.Context(), beginOf(1, "b")) // others go on
	w.check(err)
}

// callerOf authenticates a principal anew.
func (w *world) callerOf(principal string) (c access.Caller) {
	w.t.Helper()
	_, secret, err := w.access.CreateToken(w.t.Context(), w.me, access.TokenRequest{Principal: principal})
	w.check(err)
	c, err = w.access.Authenticate(w.t.Context(), secret)
	w.check(err)
	return c
}

// A ticket bounds the bytes of each upload, however they come.
func TestATicketBoundsBytes(t *testing.T) {
	w := newWorld(t, nil)
	_, _, c := w.issue(10, chunk+10)
	_, err := c.Begin(t.Context(), beginOf(chunk+11, "a"))
	w.codeIs(err, api.CodeTooLarge)
	s, err := c.Begin(t.Context(), beginOf(-1, "unknown"))
	w.check(err)
	w.check(c.PutChunk(t.Context(), s.SessionID, 0, bytes.NewReader(random(chunk)), chunk, api.PutOptions{}))
	err = c.PutChunk(t.Context(), s.SessionID, 1, bytes.NewReader(random(chunk)), chunk, api.PutOptions{})
	w.codeIs(err, api.CodeTooLarge)
	err = c.PutChunk(t.Context(), s.SessionID, 2, bytes.NewReader(random(10)), 10, api.PutOptions{})
	w.codeIs(err, api.CodeTooLarge)
	_, err = c.PutRange(t.Context(), s.SessionID, chunk, bytes.NewReader(random(11)), -1, api.PutOptions{})
	w.codeIs(err, api.CodeTooLarge)
	if s, err := c.Status(t.Context(), s.SessionID, false); err != nil || s.BytesReceived > chunk+10 {
		t.Errorf("%d bytes, %v", s.BytesReceived, err)
	}
}

// A ticket takes the types that it is for, whatever their parameters, and no others.
func TestATicketBoundsTypes(t *testing.T) {
	w := newWorld(t, nil)
	maker, secret := w.join("maker", false)
	w.roles(maker)
	uploads := int64(10)
	ticket, err := w.as(secret).CreateTicket(t.Context(), api.CreateTicketRequest{
		CapsuleID: "default", MaxBytes: 10, Uploads: &uploads, ExpiresInSeconds: 60,
		MIMETypes: []string{"Image/*", "text/plain"},
	})
	w.check(err)
	c := w.as(ticket.Secret)
	config, err := c.UploadConfig(t.Context())
	w.check(err)
	if want := []string{"image/*", "text/plain"}; !slices.Equal(config.Ticket.MIMETypes, want) {
		t.Errorf("%q", config.Ticket.MIMETypes)
	}
	for kind, fits := range map[string]bool{
		"image/png": true, "IMAGE/PNG": true, "text/plain; charset=utf-8": true, "image/svg+xml;a=b": true,
		"text/html": false, "imagery/png": false, "application/octet-stream": false, "": false,
	} {
		req := beginOf(1, "a")
		req.Meta.MIMEType = kind
		_, err := c.Begin(t.Context(), req)
		if fits {
			w.check(err)
		} else if e := w.codeIs(err, api.CodeUnsupportedMediaType); !strings.Contains(e.Detail, "image/*, text/plain") {
			t.Error(e.Detail)
		}
	}
	if open, _ := w.counts(ticket.TicketID); open != 4 {
		t.Errorf("%d open", open)
	}
}

// However many begin at once, a ticket has no more uploads than it is for. What is aborted, cleared
// or expires, it gets back.
func TestTheUploadsOfATicketAreCounted(t *testing.T) {
	w := newWorld(t, nil)
	const all = 10
	_, id, c := w.issue(all, 100)
	var sessions []string
	begin := func() {
		t.Helper()
		sessions = nil
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				s, err := c.Begin(t.Context(), beginOf(1, fmt.Sprint(i)))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					sessions = append(sessions, s.SessionID)
				} else if e := (*api.Error)(nil); !errors.As(err, &e) || e.Code != api.CodeQuotaExceeded {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(sessions) != all {
			t.Errorf("%d have begun", len(sessions))
		}
		if open, finished := w.counts(id); open != all || finished != 0 {
			t.Errorf("%d open, %d finished", open, finished)
		}
	}
	begin()
	for _, id := range sessions {
		w.check(c.Abort(t.Context(), id))
		w.check(c.Abort(t.Context(), id))
	}
	begin()
	_, err := w.client.AdminClearAll(t.Context())
	w.check(err)
	begin()
	w.pass(8 * 24 * time.Hour) // they expire, though not the ticket: the wall clock stands still
	if open, finished := w.counts(id); open != 0 || finished != 0 {
		t.Errorf("%d open, %d finished", open, finished)
	}
	begin()
	capsule, err := w.client.ReadCapsule(t.Context(), "default")
	w.check(err)
	if capsule.OpenSessions != all || capsule.ReservedBytes != all {
		t.Errorf("%+v", capsule)
	}
}

// A ticket ends with itself, its maker, and its maker's role, which does not bring it back. What is
// under way with it is aborted.
func TestATicketEnds(t *testing.T) {
	w := newWorld(t, nil)
	for name, end := range map[string]func(maker, id string){
		"revoked":              func(_, id string) { w.check(w.client.RevokeTicket(t.Context(), id)) },
		"its maker is deleted": func(maker, _ string) { w.check(w.client.DeletePrincipal(t.Context(), maker)) },
		"its maker has no role": func(maker, _ string) {
			w.roles()
			w.roles(maker)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			maker, id, c := w.issue(10, 100)
			s, err := c.Begin(t.Context(), beginOf(1, "a"))
			w.check(err)
			end(maker, id)
			_, err = c.UploadConfig(t.Context())
			w.codeIs(err, api.CodeUnauthenticated)
			_, err = c.Begin(t.Context(), beginOf(1, "b"))
			w.codeIs(err, api.CodeUnauthenticated)
			err = c.PutChunk(t.Context(), s.SessionID, 0, strings.NewReader("x"), 1, api.PutOptions{})
			w.codeIs(err, api.CodeUnauthenticated)
			_, err = w.keeper.Tick(t.Context())
			w.check(err)
			capsule, err := w.client.ReadCapsule(t.Context(), "default")
			w.check(err)
			if capsule.OpenSessions != 0 || capsule.ReservedBytes != 0 {
				t.Errorf("it still takes %+v", capsule)
			}
			if err := w.client.RevokeTicket(t.Context(), id); err == nil {
				t.Error("it can be revoked again")
			}
		})
	}
}

// A ticket sees no session of others, and others none of its.
func TestATicketIsAnIdentityOfItsOwn(t *testing.T) {
	w := newWorld(t, nil)
	_, _, c := w.issue(10, 100)
	second, err := w.client.CreateTicket(t.Context(), api.CreateTicketRequest{
		CapsuleID: "default", MaxBytes: 100, ExpiresInSeconds: 60,
	})
	w.check(err)
	other := w.as(second.Secret)
	s, err := c.Begin(t.Context(), beginOf(1, "a"))
	w.check(err)
	mine := w.begin(1)
	for _, row := range []struct {
		c  *api.Client
		id string
	}{{other, s.SessionID}, {w.client, s.SessionID}, {c, mine.SessionID}} {
		_, err := row.c.Status(t.Context(), row.id, false)
		w.codeIs(err, api.CodeNotFound)
		err = row.c.PutChunk(t.Context(), row.id, 0, strings.NewReader("x"), 1, api.PutOptions{})
		w.codeIs(err, api.CodeNotFound)
	}
	list, err := other.Uploads(t.Context(), "", 0)
	w.check(err)
	if len(list.Sessions) != 0 {
		t.Errorf("%+v", list)
	}
}

// A ticket and a link end no later than the token that made them, and have bounds.
func TestTheBoundsOfGrants(t *testing.T) {
	w := newWorld(t, nil)
	m := w.store("a", "", []byte("hello"))
	token, err := w.client.CreateToken(t.Context(), api.CreateTokenRequest{ExpiresInSeconds: ptr(60)})
	w.check(err)
	c := w.as(token.Token)
	ticket, err := c.CreateTicket(t.Context(), api.CreateTicketRequest{
		CapsuleID: "default", MaxBytes: 1, ExpiresInSeconds: 3600,
	})
	w.check(err)
	link, err := c.CreateLink(t.Context(), api.CreateLinkRequest{MemoryID: m.MemoryID, ExpiresInSeconds: 3600})
	w.check(err)
	if !ticket.ExpiresAt.Equal(token.ExpiresAt.Time) || !link.ExpiresAt.Equal(token.ExpiresAt.Time) {
		t.Errorf("%s and %s, the token %s", ticket.ExpiresAt, link.ExpiresAt, token.ExpiresAt)
	}
	const tickets, links = "/v1/upload_tickets_create", "/v1/read_links_create"
	for _, row := range []struct{ path, body string }{
		{tickets, `{"capsule_id":"default","max_bytes":0,"expires_in_seconds":60}`},
		{tickets, `{"capsule_id":"default","max_bytes":-1,"expires_in_seconds":60}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":0}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":99999999999}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":60,"uploads":0}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":60,"uploads":1000001}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":60,"mime_types":["image"]}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":60,"mime_types":["*/*"]}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":60,"mime_types":["a/b;c=d"]}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":60,"mime_types":[""]}`},
		{tickets, `{"capsule_id":"Default","max_bytes":1,"expires_in_seconds":60}`},
		{tickets, `{"capsule_id":"default","max_bytes":1,"expires_in_seconds":60,"name":"\n"}`},
		{links, `{"memory_id":"` + m.MemoryID + `","expires_in_seconds":60,"downloads":0}`},
		{links, `{"memory_id":"` + m.MemoryID + `","expires_in_seconds":60,"downloads":1000001}`},
		{links, `{"memory_id":"x","expires_in_seconds":60}`},
		{links, `{"memory_id":"` + m.MemoryID + `"}`},
	} {
		w.refused(api.CodeInvalidArgument, "POST", row.path, row.body)
	}
	for n := 2; ; n++ {
		_, err := c.CreateLink(t.Context(), api.CreateLinkRequest{MemoryID: m.MemoryID, ExpiresInSeconds: 60})
		if n == catalog.MostGrants {
			w.codeIs(err, api.CodeQuotaExceeded)
			break
		}
		w.check(err)
	}
}

// linked reads a link with a client that has no token.
func (w *world) linked(url string, headers ...string) answer {
	w.t.Helper()
	return w.do("GET", url, "", append([]string{"Authorization", ""}, headers...)...)
}

// A read link gives one memory to anybody who has it, until it ends. Then it looks like a link that
// never was.
func TestAReadLink(t *testing.T) {
	w := newWorld(t, nil)
	b := random(3 * chunk)
	never := w.linked("/r/slc_" + strings.Repeat("a", 39))
	w.problem(never, api.CodeNotFound)
	for name, end := range map[string]func(maker, id, memory string){
		"revoked":               func(_, id, _ string) { w.check(w.client.RevokeLink(t.Context(), id)) },
		"its maker is deleted":  func(maker, _, _ string) { w.check(w.client.DeletePrincipal(t.Context(), maker)) },
		"its maker has no role": func(string, string, string) { w.roles() },
		"the memory is trashed": func(_, _, m string) { w.check(w.client.DeleteMemory(t.Context(), m, false)) },
		"the memory is gone":    func(_, _, m string) { w.check(w.client.DeleteMemory(t.Context(), m, true)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			maker, secret := w.join("maker", false)
			w.roles(maker)
			m := w.store("a.png", "image/png", b)
			other := w.store("b", "", []byte("other"))
			link, err := w.as(secret).CreateLink(t.Context(), api.CreateLinkRequest{
				MemoryID: m.MemoryID, ExpiresInSeconds: 3600,
			})
			w.check(err)
			a := w.linked(link.URL)
			if a.StatusCode != 200 || !bytes.Equal(a.body, b) || a.Header.Get("Content-Type") != "image/png" {
				t.Errorf("%s, %d bytes", a.Status, len(a.body))
			}
			if a := w.linked(link.URL, "Range", "bytes=1-2"); a.StatusCode != 206 || !bytes.Equal(a.body, b[1:3]) {
				t.Errorf("%s, %d bytes", a.Status, len(a.body))
			}
			if a := w.linked(link.URL, "If-None-Match", a.Header.Get("Etag")); a.StatusCode != 304 {
				t.Error(a.Status)
			}
			// It is no token, and reads nothing else.
			bearer := "Bearer " + strings.TrimPrefix(link.URL, "/r/")
			a = w.do("GET", "/v1/memories_read/"+other.MemoryID, "", "Authorization", bearer)
			w.problem(a, api.CodeUnauthenticated)
			w.problem(w.do("POST", link.URL, "", "Authorization", ""), api.CodeMethodNotAllowed)
			end(maker, link.LinkID, m.MemoryID)
			a = w.linked(link.URL)
			w.problem(a, api.CodeNotFound)
			if string(a.body) != string(never.body) || len(a.Header) != len(never.Header) {
				t.Errorf("%s %v, one that never was: %s %v", a.body, a.Header, never.body, never.Header)
			}
		})
	}
}

// A link with a bound gives out all bytes so many times, and not one byte more, however they are
// asked for. What a reader did not take can be read by others.
func TestTheDownloadsOfALink(t *testing.T) {
	w := newWorld(t, nil)
	b := bytes.Repeat(random(64<<10), 256) // more than all buffers on the way take
	m := w.store("a", "", b)
	link, err := w.client.CreateLink(t.Context(), api.CreateLinkRequest{
		MemoryID: m.MemoryID, ExpiresInSeconds: 3600, Downloads: ptr(2),
	})
	w.check(err)
	for range 10 { // neither costs anything
		if a := w.do("HEAD", link.URL, "", "Authorization", ""); a.StatusCode != 200 {
			t.Error(a.Status)
		}
		if a := w.linked(link.URL, "If-None-Match", "*"); a.StatusCode != 304 {
			t.Error(a.Status)
		}
		if a := w.linked(link.URL, "Range", "bytes=99999999-"); a.StatusCode != 416 {
			t.Error(a.Status)
		}
	}
	// Readers that leave give back what they have not read.
	for range 4 {
		ctx, leave := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", w.url+link.URL, nil)
		w.check(err)
		res, err := w.transport.RoundTrip(req)
		w.check(err)
		if res.StatusCode != 200 {
			t.Error(res.Status)
		}
		leave()
		res.Body.Close()
		w.until("the reader to have left", func() bool {
			slots, _ := w.server.Held()
			return slots == 0
		})
	}
	links, err := w.client.ListLinks(t.Context(), "", "", 0)
	w.check(err)
	left := 2*int64(len(b)) - links.Links[0].BytesRead
	if left >= 2*int64(len(b)) || left < int64(len(b)) {
		t.Errorf("%d bytes are left of %d", left, 2*len(b))
	}
	// Of all that ask at once, each for a MiB, as many are answered as there are bytes for.
	const part = 1 << 20
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			body, _, err := w.client.Linked(t.Context(), link.URL, 0, part)
			if err != nil {
				var e *api.Error
				if !errors.As(err, &e) || e.Code != api.CodeNotFound {
					t.Error(err)
				}
				return
			}
			defer body.Close()
			n, err := io.Copy(io.Discard, body)
			if err != nil {
				t.Error(err)
			}
			got.Add(n)
		})
	}
	wg.Wait()
	if got.Load() != left/part*part {
		t.Errorf("%d bytes were given out, and %d were left", got.Load(), left)
	}
	w.problem(w.linked(link.URL), api.CodeNotFound)
}
