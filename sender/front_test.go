package sender_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/api"
	"sluice/sender"
)

// inMemory is a transport to a handler without a network between, for tests with fake time.
type inMemory struct{ h http.Handler }

func (m inMemory) RoundTrip(r *http.Request) (res *http.Response, err error) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			err = errors.New("connection reset")
		} else if p != nil {
			panic(p)
		}
	}()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	rec := httptest.NewRecorder()
	m.h.ServeHTTP(rec, r.Clone(r.Context()))
	if err := context.Cause(r.Context()); err != nil {
		return nil, err
	}
	res = rec.Result()
	res.Request = r
	return res, nil
}

// near returns a wire without a network.
func near(t *testing.T) *wire {
	w := emptyWire(t)
	w.client = api.NewClient(
		"http://there.example/base", "secret", &http.Client{Transport: inMemory{http.StripPrefix("/base", w)}},
	)
	return w
}

// many sends n small files at once, 16 at a time, and returns the errors.
func many(t *testing.T, s *sender.Sender, n int) (errs []error) {
	t.Helper()
	dir := t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, 16)
	for i := range n {
		path := dir + "/" + strconv.Itoa(i)
		if err := os.WriteFile(path, noise(i+1), 0o600); err != nil {
			t.Fatal(err)
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			_, err := s.Send(t.Context(), sender.File{Disk: path, Name: strconv.Itoa(i)})
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errs
}

// A front that takes 20 requests a second, and says so, does not get many more; and no request
// becomes several small ones.
func TestAFrontThatLimitsRequestsIsWaitedForByAllTogether(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			w := near(t)
			var mu sync.Mutex
			asked, taken, since := 0, 0, time.Now()
			w.mishap = func(rw http.ResponseWriter, _ *http.Request) bool {
				time.Sleep(5 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				if time.Since(since) >= time.Second {
					since, taken = time.Now(), 0
				}
				asked++
				if taken++; taken <= 20 {
					return false
				}
				rw.Header().Set("Retry-After", "1")
				http.Error(rw, "<html><h1>busy</h1></html>", status)
				return true
			}
			began := time.Now()
			for _, err := range many(t, w.sender(), 200) {
				if err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(began); asked > 300 || took > 15*time.Second || w.count("uploads_begin") > 0 {
				t.Errorf("%d: %d requests in %s, %d sessions", status, asked, took, w.count("uploads_begin"))
			}
		})
	}
}

// A failure that can't get better ends all files at once, with one plain sentence. Any other is
// retried for as long as patience lasts.
func TestForeignAnswersAreOfSeveralClasses(t *testing.T) {
	page := func(title string) string {
		return "<!DOCTYPE html><html><head><title>" + title +
			"</title></head><body onload=x>\x1b[2J hello</body></html>"
	}
	for name, c := range map[string]struct {
		status  int
		headers map[string]string
		body    string
		says    string
		once    bool
	}{
		"a redirect":      {301, map[string]string{"Location": "https://there.example/base/v1/upload_config"}, page("Moved"), "has moved to https://there.example/base: give that address", true},
		"another origin":  {307, map[string]string{"Location": "http://evil.example/v1/x"}, "", "has moved to http://evil.example: give", true},
		"a login":         {302, map[string]string{"Location": "https://sso.example/login?next=a\x7fb"}, "", "nothing is sent after it", true},
		"another server":  {200, nil, page("Welcome to \x1b[31mnginx!"), `no Sluice server; is it the right one?, which says "Welcome to [31mnginx!" (answer 200 OK)`, true},
		"its 404":         {404, nil, page("404 Not Found"), "no Sluice server at this address", true},
		"its 403":         {403, nil, page("403"), "refuses this", true},
		"its 401":         {401, nil, "", "wants a login of its own", true},
		"TLS wanted":      {400, nil, "Client sent an HTTP request to an HTTPS server.\n", "begins with https://", true},
		"TLS wanted (2)":  {400, nil, page("400 The plain HTTP request was sent to HTTPS port"), "begins with https://", true},
		"a bad gateway":   {502, nil, page("502 Bad Gateway"), "gets no answer from it", false},
		"a slow gateway":  {504, nil, "", "gets no answer from it", false},
		"away":            {503, nil, page("down"), "the server is away", false},
		"too many":        {429, map[string]string{"Retry-After": "3600"}, "", "takes no more requests for now", false},
		"a date to wait":  {503, map[string]string{"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}, "", "the server is away", false},
		"an odd one":      {520, nil, page("cloud"), "gets no answer from it", false},
		"a bare too long": {413, nil, page("413"), "does not take this request, which says", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := near(t)
				var mu sync.Mutex
				asked := 0
				w.mishap = func(rw http.ResponseWriter, r *http.Request) bool {
					mu.Lock()
					defer mu.Unlock()
					if asked++; r.Host != "there.example" {
						t.Errorf("the token went to %s", r.Host)
					}
					for k, v := range c.headers {
						rw.Header()[k] = []string{v}
					}
					rw.WriteHeader(c.status)
					io.WriteString(rw, c.body)
					return true
				}
				s := sender.New(w.client, sender.Options{Patience: time.Minute})
				began := time.Now()
				for _, err := range many(t, s, 20) {
					if err == nil || !strings.Contains(err.Error(), c.says) ||
						strings.ContainsAny(err.Error(), "<\x1b\x7f") {
						t.Fatalf("%v", err)
					}
					if c.once != !errors.Is(err, sender.ErrPatience) {
						t.Fatalf("tried for %s: %v", time.Since(began), err)
					}
				}
				took := time.Since(began)
				if c.once && (asked != 1 || took > 0) || !c.once && (took < time.Minute || took > 20*time.Minute) {
					t.Errorf("%d requests in %s", asked, took)
				}
			})
		})
	}
}

// Patience bounds every loop, whatever the server asks for, and also if it says nothing at all.
func TestPatienceIsABoundEverywhere(t *testing.T) {
	for _, where := range []string{
		"upload_config", "uploads_begin", "uploads_put_chunk", "uploads_put_range", "uploads_status", "uploads_finish",
		"memories_create", "uploads_list",
	} {
		for how, answer := range map[string]func(http.ResponseWriter, *http.Request){
			"at a limit": func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/problem+json")
				rw.Header().Set("Retry-After", "60")
				rw.WriteHeader(429)
				io.WriteString(rw, `{"status":429,"code":"ResourceExhausted",`+
					`"detail":"too many open sessions","retry_after_ms":60000}`)
			},
			"away": func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Retry-After", "60")
				rw.WriteHeader(503)
			},
			"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			"cut":    func(http.ResponseWriter, *http.Request) { cutOff() },
		} {
			t.Run(where+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w, n := near(t), large
					if where == "memories_create" {
						n = 1000
					}
					w.mishap = func(rw http.ResponseWriter, r *http.Request) bool {
						// Ranges and status are asked for if chunks do not get through.
						ranges := where == "uploads_put_range" || where == "uploads_status"
						if ranges && strings.Contains(r.URL.Path, "put_chunk") {
							rw.WriteHeader(413)
							return true
						}
						if !strings.Contains(r.URL.Path, where) {
							return false
						}
						answer(rw, r)
						return true
					}
					s := sender.New(w.client, sender.Options{Patience: 3 * time.Second})
					began := time.Now()
					_, err := s.Send(t.Context(), file(t, noise(n)))
					if took := time.Since(began); !errors.Is(err, sender.ErrPatience) || took < 2*time.Second ||
						took > 8*time.Second {
						t.Errorf("after %s: %v", took, err)
					}
				})
			})
		}
	}
}

// Behind a front with a limit of size no larger body is sent twice.
func TestABodyThatIsTooLargeIsNotTriedAgain(t *testing.T) {
	w, b := newWire(t), noise(large)
	var mu sync.Mutex
	refused := 0
	w.mishap = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.ContentLength <= 50_000 || !hasBody(r) {
			return false
		}
		mu.Lock()
		refused++
		mu.Unlock()
		io.Copy(io.Discard, r.Body)
		http.Error(rw, "<html>", http.StatusRequestEntityTooLarge)
		return true
	}
	s := sender.New(w.client, sender.Options{Parallel: 1})
	m, err := s.Send(t.Context(), file(t, b))
	if err != nil {
		t.Fatal(err)
	}
	w.holds(m, b)
	if refused > 4 { // 256, 128 and 64 KiB
		t.Errorf("%d bodies were refused for their length", refused)
	}
}

// A pipe through a wrong address is not read, and says so at once.
func TestAWrongSchemeIsSaid(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = nil
	secure.StartTLS()
	defer secure.Close()
	for url, says := range map[string]string{
		strings.Replace(plain.URL, "http:", "https:", 1):  "does not speak TLS: its address begins with http://",
		strings.Replace(secure.URL, "https:", "http:", 1): "speaks TLS: its address begins with https://",
		secure.URL: "certificate",
	} {
		s := sender.New(api.NewClient(
			url, "secret", &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		), sender.Options{})
		_, err := s.SendPipe(t.Context(), sender.File{Name: "p"}, bytes.NewReader(nil))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", url, err)
		}
		if !errors.Is(err, sender.ErrServer) {
			t.Errorf("%s is tried again: %v", url, err)
		}
	}
}
