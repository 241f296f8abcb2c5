package attack

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/api"
)

// state is what a server uses.
type state struct {
	peak              int64 // the largest resident set so far, in bytes
	files, goroutines int
}

const (
	// A server that was attacked may keep a few more descriptors and goroutines than a fresh one: files of packs, tables
	// of the metadata, tasks that rest.
	moreFiles, moreGoroutines = 24, 24
)

// state looks at the server.
func (v *victim) state() (s state) {
	v.Helper()
	v.alive()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.srv.PID()))
	v.must(err)
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &s.peak); err == nil {
			s.peak <<= 10
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.srv.PID()))
	v.must(err)
	s.files = len(files)
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get(v.srv.Admin + "/debug/pprof/goroutine?debug=1")
	v.must(err)
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "goroutine profile: total %d", &s.goroutines); err == nil {
			return s
		}
	}
	v.Fatal("no number of goroutines")
	return s
}

// comesBack wants everything that the attackers took to be given back.
func (v *victim) comesBack(quiet state, keeps int) {
	v.Helper()
	var now state
	for end := time.Now().Add(settled); ; time.Sleep(100 * time.Millisecond) {
		now = v.state()
		if now.files <= quiet.files+moreFiles+keeps && now.goroutines <= quiet.goroutines+moreGoroutines {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	v.Errorf("%v after the attack %d descriptors and %d goroutines are there; before it there were %d and %d",
		settled, now.files, now.goroutines, quiet.files, quiet.goroutines)
}

// race measures the good client alone and among the attackers, in turn.
func (v *victim) race(a attack) {
	v.Helper()
	const bytesEach, uploads = 8 << 20, 8
	body := make([]byte, bytesEach)
	_, _ = v.rand.Read(body)
	once := func() float64 {
		began := time.Now()
		for range uploads {
			m, err := v.good.Create(v.Context(), api.CreateRequest{CapsuleID: "alice", Name: "fast"}, bytes.NewReader(body), bytesEach)
			if err != nil {
				v.Errorf("a good client whose speed is measured: %v", err)
				return 0
			}
			if err := v.good.DeleteMemory(v.Context(), m.MemoryID, true); err != nil {
				v.Error(err)
			}
		}
		return uploads * bytesEach / time.Since(began).Seconds() / (1 << 20)
	}
	var alone, among, ratios []float64
	for range *speed {
		one := once()
		a.strike(v)
		two := once()
		v.leave()
		alone, among, ratios = append(alone, one), append(among, two), append(ratios, two/one)
	}
	for _, all := range [][]float64{alone, among, ratios} {
		slices.Sort(all)
	}
	n := *speed
	v.Logf("good client: alone %.0f (%.0f to %.0f) MiB/s, among them %.0f (%.0f to %.0f), ratio %.2f (%.2f to %.2f)",
		alone[n/2], alone[0], alone[n-1], among[n/2], among[0], among[n-1], ratios[n/2], ratios[0], ratios[n-1])
}
