package attack

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// state is how much a server uses.
type state struct {
	peak              int64 // the largest resident set so far, in bytes
	files, goroutines int
}

const (
	// After an attack a server may keep a few more descriptors and goroutines than a fresh one:
	// files of packs, tables of the metadata, idle tasks.
	moreFiles, moreGoroutines = 24, 24
)

// state measures the server.
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
	res, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get(
		v.srv.Admin + "/debug/pprof/goroutine?debug=1",
	)
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

// comesBack wants everything back that the attackers took.
func (v *victim) comesBack(idle state, keeps int) {
	v.Helper()
	var now state
	for end := time.Now().Add(recovery); ; time.Sleep(100 * time.Millisecond) {
		now = v.state()
		if now.files <= idle.files+moreFiles+keeps && now.goroutines <= idle.goroutines+moreGoroutines {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	v.Errorf("%v after the attack %d descriptors and %d goroutines are there; before it there were %d and %d",
		recovery, now.files, now.goroutines, idle.files, idle.goroutines)
}
