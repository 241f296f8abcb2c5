package attack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"sluice/api"
)

// The attackers that slow a good client down are a process of their own, with a quarter of a
// processor. When the good client is measured alone, a process beside it computes with the same
// share, if the machine has control groups. So the figures show the server, and not how many
// processes share the processors.
const (
	attackersShare = 25_000  // of
	attackersOf    = 100_000 // microseconds
)

// siege is the order for a process of attackers. Without a URL it only computes; without an Attack
// it makes all.
type siege struct{ Attack, URL, Token, Session, Content, Gapped string }

// TestSiege is that process: it attacks until its standard input ends.
func TestSiege(t *testing.T) {
	spec := os.Getenv("SLUICE_SIEGE")
	if spec == "" {
		t.Skip("it is started by TestAttacks -attack.speed")
	}
	var s siege
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatal(err)
	}
	if s.URL == "" {
		go func() {
			for {
				runtime.Gosched()
			}
		}()
		fmt.Println("striking")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	v := &victim{
		T: t, addr: strings.TrimPrefix(s.URL, "http://"), attacker: s.Token, session: s.Session, content: s.Content,
		gapped: s.Gapped,
	}
	v.mallory = v.clientAt(s.URL, s.Token)
	of := slices.DeleteFunc(slices.Clone(attacks), func(a attack) bool { return s.Attack != "" && a.name != s.Attack })
	v.begins(of, 1)
	fmt.Println("striking")
	_, _ = io.Copy(io.Discard, os.Stdin)
	v.leave()
	for _, h := range v.http {
		h.CloseIdleConnections()
	}
}

// besiege starts the process, and gives the function that ends it.
func (v *victim) besiege(s siege) (end func()) {
	v.Helper()
	spec, err := json.Marshal(s)
	v.must(err)
	before, undo := few()
	if before == "" && s.URL == "" {
		return func() {}
	}
	c := exec.Command("/bin/sh", "-c", before+`exec nice -n 19 "$0" -test.run '^TestSiege$'`, os.Args[0])
	c.Env = append(os.Environ(), "SLUICE_SIEGE="+string(spec))
	in, err := c.StdinPipe()
	v.must(err)
	out, err := c.StdoutPipe()
	v.must(err)
	v.must(c.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "striking" {
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, out)
	}()
	if s.URL != "" {
		time.Sleep(3 * time.Second) // until their connections are open
	}
	return func() {
		_ = in.Close()
		<-drained
		if err := c.Wait(); err != nil {
			v.Errorf("the attackers: %v", err)
		}
		undo()
	}
}

// few gives the shell's line that gives a process a small share of the processors, if the machine
// has control groups.
func few() (line string, undo func()) {
	for _, kind := range [][2]string{{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"}, {"/sys/fs/cgroup", "cpu.max"}} {
		dir := filepath.Join(kind[0], fmt.Sprintf("sluice-attackers-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		quota := fmt.Sprint(attackersShare)
		if kind[1] == "cpu.max" {
			quota += fmt.Sprint(" ", attackersOf)
		}
		if err := os.WriteFile(filepath.Join(dir, kind[1]), []byte(quota), 0o600); err != nil {
			_ = os.Remove(dir)
			continue
		}
		return "echo $$ > " + dir + "/cgroup.procs;", func() { _ = os.Remove(dir) }
	}
	return "", func() {}
}

// link is the rate of a good client in bytes a second: 1 Gbit/s. The buffers at both ends have
// space for so many bytes: a link goes on with these while a process waits for a processor.
const (
	link    = 125_000_000
	buffers = 4 << 20
)

// linked is a body that comes over a link.
type linked struct {
	io.Reader
	rate *rate.Limiter
}

// throttled gives a body that comes over a link that is idle until then. per is its bytes a second.
func throttled(per rate.Limit, body io.Reader) linked {
	l := rate.NewLimiter(per, buffers)
	l.AllowN(time.Now(), buffers)
	return linked{body, l}
}

func (l linked) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p[:min(len(p), 64<<10)])
	_ = l.rate.WaitN(context.Background(), n)
	return n, err
}

// race measures the good client alone and among the attackers, in turn: over a link, and as fast as
// the machine is.
func (v *victim) race(a attack) {
	v.Helper()
	v.many = true // the good client repeats refused requests, and is slower for it
	defer func() { v.many = a.many }()
	v.pairs("over 1 Gbit/s", a, link, 16)
	v.pairs("on this machine", a, rate.Inf, 64)
}

func (v *victim) pairs(how string, a attack, per rate.Limit, uploads int) {
	v.Helper()
	const bytesEach = 8 << 20
	body := make([]byte, bytesEach)
	_, _ = v.rand.Read(body)
	once := func() float64 {
		began := time.Now()
		for range uploads {
			var m api.Memory
			v.must(v.insist(v.Context(), step{"create", func() (err error) {
				m, err = v.good.Create(
					v.Context(), api.CreateRequest{CapsuleID: "alice", Name: "fast"},
					throttled(per, bytes.NewReader(body)), bytesEach,
				)
				return err
			}}))
			v.must(v.insist(v.Context(), step{"delete", func() error { return v.deletes(v.Context(), m.MemoryID) }}))
		}
		return float64(uploads*bytesEach) / time.Since(began).Seconds() / (1 << 20)
	}
	once()
	var alone, beside, among, ratios []float64
	for range *speed {
		alone = append(alone, once())
		end := v.besiege(siege{})
		one := once()
		end()
		end = v.besiege(siege{a.name, v.srv.URL, v.attacker, v.session, v.content, v.gapped})
		two := once()
		end()
		beside, among, ratios = append(beside, one), append(among, two), append(ratios, two/one)
		time.Sleep(time.Second) // everything that the attackers had is given back
	}
	for _, all := range [][]float64{alone, beside, among, ratios} {
		slices.Sort(all)
	}
	n := *speed
	v.Logf("good client %s: alone %.0f (%.0f to %.0f) MiB/s, beside one that computes %.0f (%.0f to %.0f), among them "+
		"%.0f (%.0f to %.0f), "+
		"of that beside one %.2f (%.2f to %.2f), %d repeats", how,
		alone[n/2], alone[0], alone[n-1], beside[n/2], beside[0], beside[n-1],
		among[n/2], among[0], among[n-1], ratios[n/2], ratios[0], ratios[n-1], v.again)
	v.again = 0
}
