// Package attack has the clients that a server must bear: those that send without end, never read,
// wait, hold and flood, over HTTP/1.1 and HTTP/2. It runs the real program in 256 MiB of memory.
//
// It owns the attacks, and the demands on the server during each of them and during all at once.
// The server lives. Its memory, goroutines and descriptors stay below stated bounds and come back.
// It answers requests for its health. A good client of another principal gets its work done. The
// package does not own the bounds themselves, which the tests of packages api and upload pin one by
// one, nor mishaps of process and disk (packages soak and realdisk). `go test
// ./internal/test/attack` makes each attack once, and then all together. `make soak` does so again
// and again, and measures the good client's speed.
package attack

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/access"
	"sluice/api"
	"sluice/catalog"
	"sluice/internal/test/load"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

var (
	program = flag.String("attack.program", "", "the sluice to run; empty builds one")
	times   = flag.Int("attack.times", 1, "how often each attack is made, on one server")
	atOnce  = flag.Bool("attack.together", true, "make all attacks at once, too")
	speed   = flag.Int(
		"attack.speed", 0, "only measure the good client alone and among the attackers, in so many rounds",
	)
)

const (
	// memory is how many bytes the server may have.
	memory = 256 << 20
	// recovery is how long the server has to give everything back once the attackers have left. It
	// is longer than any deadline of the server for a client that has gone.
	recovery = 90 * time.Second
	// tries is how often a supervisor and a good client try.
	tries = 3
)

// attack is one way of harming a server.
type attack struct {
	name  string
	limit string // lines that the shell runs before it becomes the server
	// prepare stores the content that the attack needs; nil: none.
	prepare func(v *victim)
	// strike returns while the attack goes on. The victim closes its connections.
	strike func(v *victim)
	keeps  int  // descriptors that the server may keep open for the attackers' uploads
	many   bool // it is several attacks
}

var attacks = slices.Concat(bodies, responses, connections, frames)

func TestAttacks(t *testing.T) {
	if withRace {
		t.Skip("the race detector takes memory of its own: go test ./internal/test/attack")
	}
	exe, err := load.Program(*program, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attacks {
		t.Run(strings.ReplaceAll(a.name, " ", "-"), func(t *testing.T) {
			v := newVictim(t, exe, a)
			for range *times {
				v.bear(a)
			}
			v.stop()
		})
	}
	if !*atOnce {
		return
	}
	t.Run("all-at-once", func(t *testing.T) {
		v := newVictim(t, exe, attack{})
		v.bear(mixture(attacks, 0))
		for i := range *times - 1 { // several of them, not all, on the same server
			dice := rand.New(rand.NewPCG(1, uint64(i)))
			some := slices.Clone(attacks)
			dice.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
			v.bear(mixture(some[:1+dice.IntN(len(some))], uint64(i+1)))
		}
		v.stop()
	})
}

// victim is a server with its attackers and the good client.
type victim struct {
	*testing.T
	srv      *load.Server
	addr     string // of the public listener
	attacker string // the attackers' token
	mallory  *api.Client
	session  string // an open upload of the attackers'
	content  string // a large memory of the attackers
	gapped   string // an open upload of the attackers, in many pieces
	good     *api.Client
	grouped  bool // a control group holds the server to its memory, and kills it beyond
	http     []*http.Transport
	rand     *rand.ChaCha8

	wg   sync.WaitGroup
	many bool // several attacks go on, so that the server may refuse one client because of the others
	// again is how often the good client has repeated a request.
	again int

	mu      sync.Mutex
	held    []io.Closer // open connections of the attackers
	leaving bool        // they leave, and open nothing more
}

// newVictim starts a server that has a principal for the attackers and one for the good client,
// each with its own capsule.
func newVictim(t *testing.T, exe string, a attack) *victim {
	t.Helper()
	v := &victim{T: t, rand: rand.NewChaCha8([32]byte{byte(len(a.name))})}
	data := filepath.Join(t.TempDir(), "data")
	first, err := load.Start(exe, data, "")
	v.must(err)
	secrets := map[string]string{}
	v.must(first.Stop())
	ids := v.principals(data, secrets)
	before, undo := v.group()
	v.grouped = before != ""
	t.Cleanup(undo)
	v.srv, err = load.Start(exe, data, before+a.limit)
	v.must(err)
	t.Cleanup(func() {
		v.leave()
		if v.srv.Alive() {
			v.srv.Kill()
		}
		for _, h := range v.http {
			h.CloseIdleConnections()
		}
	})
	v.addr = strings.TrimPrefix(v.srv.URL, "http://")
	for name, id := range ids {
		_, err := v.srv.Client.CreateCapsule(t.Context(), api.CreateCapsuleRequest{
			CapsuleID: name, Owners: []string{id},
		})
		v.must(err)
	}
	v.attacker = secrets["mallory"]
	v.mallory, v.good = v.client(secrets["mallory"]), v.client(secrets["alice"])
	http.DefaultClient.CloseIdleConnections()
	return v
}

func (v *victim) client(secret string) *api.Client { return v.clientAt(v.srv.URL, secret) }

func (v *victim) clientAt(url, secret string) *api.Client {
	tr := &http.Transport{MaxConnsPerHost: 16, MaxIdleConnsPerHost: 16}
	v.http = append(v.http, tr)
	return api.NewClient(url, secret, &http.Client{Transport: tr})
}

// principals makes the principals in the data folder, since no request can.
func (v *victim) principals(data string, secrets map[string]string) (ids map[string]string) {
	v.Helper()
	db, err := pebblemeta.Open(filepath.Join(data, "meta"), pebblemeta.Options{
		Hook: upload.Hook(catalog.Bounds{}, nil),
	})
	v.must(err)
	defer func() { v.must(db.Close()) }()
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	v.must(err)
	who := access.New(db.Catalog(), wall{}, func() int64 { return 0 }, nil)
	admin, err := who.Authenticate(v.Context(), strings.TrimSpace(string(token)))
	v.must(err)
	ids = map[string]string{}
	for _, name := range []string{"mallory", "alice"} {
		p, err := who.CreatePrincipal(v.Context(), admin, name, false)
		v.must(err)
		ids[name] = p.ID
		_, secrets[name], err = who.CreateToken(v.Context(), admin, access.TokenRequest{Principal: p.ID, Name: ""})
		v.must(err)
	}
	return ids
}

type wall struct{}

func (wall) Now() time.Time { return time.Now() }

// group gives the shell's line that puts the server into its own control group, if the machine has
// control groups.
func (v *victim) group() (line string, undo func()) {
	name := fmt.Sprintf("sluice-attack-%d", os.Getpid())
	for _, kind := range [][3]string{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(kind[0], name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, kind[1]), []byte(strconv.Itoa(memory)), 0o600); err != nil {
			_ = os.Remove(dir)
			continue
		}
		return "echo $$ > " + dir + "/cgroup.procs;", func() { _ = os.Remove(dir) }
	}
	return "", func() {} // then the bound is only looked at
}

func (v *victim) must(err error) {
	v.Helper()
	if err != nil {
		v.Fatal(err)
	}
}

// bear makes the attack, and demands of the server what it must bear.
func (v *victim) bear(a attack) {
	v.Helper()
	v.many = a.many
	if a.prepare != nil {
		a.prepare(v)
	}
	v.goodRound("before")
	if *speed > 0 {
		v.race(a)
		v.alive()
		return
	}
	idle := v.state()
	a.strike(v)
	v.alive()
	v.healthy()
	v.goodRound("in the midst of it")
	v.alive()
	worst := v.state()
	if worst.peak > memory && !v.grouped {
		v.Errorf("%d MiB were resident at the worst, and %d are the bound", worst.peak>>20, memory>>20)
	}
	v.leave()
	v.comesBack(idle, a.keeps)
	v.goodRound("afterwards")
	v.Logf("at the worst %d MiB resident, %d descriptors, %d goroutines; before %d and %d; the good client repeated "+
		"%d requests",
		worst.peak>>20, worst.files, worst.goroutines, idle.files, idle.goroutines, v.again)
	v.again = 0
}

// alive fails the test if the server has ended.
func (v *victim) alive() {
	v.Helper()
	if !v.srv.Alive() {
		v.Fatalf("the server has ended (%v): %.2000s", v.srv.Err(), v.srv.Output())
	}
}

// healthy asks for the server's health as a supervisor does: each time on a new connection. One
// good answer of three is enough.
func (v *victim) healthy() {
	v.Helper()
	for _, path := range []string{"/healthz", "/readyz"} {
		var all error
		for try := range tries {
			err := v.ask(path)
			if all = errors.Join(all, err); err == nil {
				break
			} else if try == tries-1 {
				v.Error(all)
			}
			time.Sleep(time.Second)
		}
	}
}

// ask wants status 200 of a path.
func (v *victim) ask(path string) error {
	ctx, cancel := context.WithTimeout(v.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.srv.URL+path, nil)
	v.must(err)
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if res.Body.Close(); res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, res.Status)
	}
	return nil
}

// goodRound is the work of a good client. If the server refuses it for now, or it loses its
// connection, it begins anew, as often as tries says. An attack may surprise the server, but not
// for long.
func (v *victim) goodRound(when string) {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.Context(), time.Minute)
	defer cancel()
	var all error
	for try := range tries {
		err := v.work(ctx)
		if all = errors.Join(all, err); err == nil {
			if try > 0 {
				v.Logf("a good client, %s, had to begin anew: %v", when, all)
			}
			return
		}
		time.Sleep(time.Second)
	}
	v.Errorf("a good client, %s: %v", when, all)
}

// work stores a megabyte in one request and in chunks, reads, lists and deletes it.
func (v *victim) work(ctx context.Context) error {
	body := make([]byte, 1<<20)
	_, _ = v.rand.Read(body)
	size, chunk := int64(len(body)), int64(256<<10)
	var whole, m api.Memory
	var s api.Session
	steps := []step{
		{"create", func() (err error) {
			whole, err = v.good.Create(
				ctx, api.CreateRequest{CapsuleID: "alice", Name: "whole"}, bytes.NewReader(body), size,
			)
			return err
		}},
		{"begin", func() (err error) {
			s, err = v.good.Begin(ctx, api.BeginRequest{
				CapsuleID: "alice", Meta: api.Meta{Name: "chunks", Bytes: &size}, ChunkSize: chunk,
			})
			return err
		}},
	}
	for i := range size / chunk {
		steps = append(steps, step{"put", func() error {
			return v.good.PutChunk(
				ctx, s.SessionID, i, bytes.NewReader(body[i*chunk:(i+1)*chunk]), chunk, api.PutOptions{},
			)
		}})
	}
	steps = append(steps,
		step{"finish", func() (err error) {
			m, err = v.good.Finish(ctx, api.FinishRequest{SessionID: s.SessionID, SHA256: whole.SHA256, TotalLen: size})
			return err
		}},
		step{"read", func() error { return v.reads(ctx, m.MemoryID, body) }},
		step{"list", func() error {
			page, err := v.good.ListMemories(ctx, api.MemoryQuery{CapsuleID: "alice"})
			if err == nil && len(page.Memories) < 2 {
				err = fmt.Errorf("%d memories", len(page.Memories))
			}
			return err
		}},
		step{"delete", func() error { return v.deletes(ctx, m.MemoryID) }},
		step{"delete", func() error { return v.deletes(ctx, whole.MemoryID) }},
	)
	for _, s := range steps {
		if err := v.insist(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// step is a request of the good client's.
type step struct {
	name string
	do   func() error
}

// insist does a step. During several attacks the good client repeats a request that is refused or
// cut off, as `sluice put` does. During a single attack it needs no repeats.
func (v *victim) insist(ctx context.Context, s step) error {
	for {
		err := s.do()
		var refused *api.Error
		if err == nil || !v.many ||
			errors.As(err, &refused) && refused.Status != http.StatusServiceUnavailable &&
				refused.Status != http.StatusTooManyRequests {
			return err
		}
		v.again++
		v.alive()
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// deletes deletes a memory. If an earlier answer may have been lost, a memory that is not there
// counts as deleted.
func (v *victim) deletes(ctx context.Context, id string) error {
	err := v.good.DeleteMemory(ctx, id, true)
	var refused *api.Error
	if v.many && errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return nil
	}
	return err
}

// reads wants the content of a memory.
func (v *victim) reads(ctx context.Context, id string, want []byte) error {
	content, _, err := v.good.Content(ctx, id, 0, -1)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(content)
	if err := errors.Join(err, content.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("other bytes than were stored")
	}
	return nil
}

// keep notes a connection of an attacker. After the end of the attack it closes it at once.
func (v *victim) keep(c io.Closer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.leaving {
		_ = c.Close()
		return
	}
	v.held = append(v.held, c)
}

// leave ends the attack.
func (v *victim) leave() {
	v.mu.Lock()
	v.leaving = true
	v.hangUp()
	v.mu.Unlock()
	v.wg.Wait()
	v.leaving = false
}

// hangUp closes the connections of the attackers. mu is held.
func (v *victim) hangUp() {
	for _, c := range v.held {
		_ = c.Close()
	}
	v.held = nil
}

// gone reports whether the attackers leave.
func (v *victim) gone() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.leaving
}

// stop ends the server as a supervisor does.
func (v *victim) stop() {
	v.Helper()
	for _, h := range v.http {
		h.CloseIdleConnections()
	}
	v.must(v.srv.Stop())
}
