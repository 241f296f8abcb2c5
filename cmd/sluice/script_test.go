package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/internal/test/issuer"
)

// The command line, as scripts: testdata/script has one for each topic. The commands that scripts
// use beside testscript's own are below.
func TestScript(t *testing.T) {
	readme, err := filepath.Abs("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		WorkdirRoot: t.TempDir(), // else its folder stays if only some scripts run
		Dir:         filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("README", readme)
			env.Setenv("DOCS", filepath.Join(filepath.Dir(readme), "docs"))
			env.Setenv("GORACE", os.Getenv("GORACE"))
			w := &world{}
			env.Values[worldKey{}] = w
			env.Defer(w.end)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"run":    run,
			"until":  until,
			"server": serverCommand,
			"gate":   gateCommand,
			"issuer": issuerCommand(t),
			"proxy":  proxyCommand,
			"random": randomFile,
			"id":     captureID,
			"flags":  flagsOfHelp,
		},
	})
}

// world has the processes of one script.
type world struct {
	server *child
	gate   *gate
	issuer *issuer.Issuer
	code   string // of the last login that was answered
	ends   []func()
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func (w *world) end() {
	for _, end := range slices.Backward(w.ends) {
		end()
	}
}

// usage fails the script if a command is used in another form.
func usage(ts *testscript.TestScript, ok bool, form string) {
	if !ok {
		ts.Fatalf("usage: %s", form)
	}
}

// run [STATUS] COMMAND ARG…
//
// runs a command, which must end with this exit status (0). Its standard error, which is no
// terminal, must be plain: no carriage returns, no escape codes. With --json among the arguments
// every line of both outputs must be one JSON object.
func run(ts *testscript.TestScript, neg bool, args []string) {
	want := 0
	if len(args) > 0 {
		if n, err := strconv.Atoi(args[0]); err == nil {
			want, args = n, args[1:]
		}
	}
	usage(ts, !neg && len(args) > 0, "run [STATUS] COMMAND ARG…")
	got, err := 0, ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, not %d", got, want)
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if strings.ContainsAny(stderr, "\r\x1b") {
		ts.Fatalf("standard error is no terminal, and is written to as if it were: %q", stderr)
	}
	if slices.Contains(args, "--json") && !slices.Contains(args, "--help") {
		jsonLines(ts, "standard output", stdout)
		jsonLines(ts, "standard error", stderr)
	}
}

func jsonLines(ts *testscript.TestScript, where, text string) {
	for line := range strings.Lines(text) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil || !strings.HasSuffix(line, "\n") {
			ts.Fatalf("%s has a line that is no JSON object: %q (%v)", where, line, err)
		}
	}
}

// until PATTERN COMMAND ARG…
//
// runs a command again and again until it ends well and its output matches. It fails after a
// minute.
func until(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 1, "until PATTERN COMMAND ARG…")
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("no match for %#q in a minute", args[0])
}

// server start [DATA [FLAG…]]
//
// starts a server on a data folder (sluice-data) and a free port. It sets SLUICE_URL and
// SLUICE_TOKEN, and stderr to the first text of the server.
//
// server stop
//
// sends SIGTERM. The server must then end with status 0; stderr is all of its text.
//
// server kill
//
// is kill -9. Connections through a gate are lost with all bytes in them.
func serverCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	verb := ""
	if len(args) > 0 {
		verb = args[0]
	}
	usage(
		ts, !neg && (verb == "start" || len(args) == 1 && (verb == "stop" || verb == "kill")),
		"server start [DATA [FLAG…]] | stop | kill",
	)
	if verb == "start" {
		w.start(ts, args[1:])
		return
	}
	if w.server == nil {
		ts.Fatalf("no server is running")
	}
	if verb == "kill" {
		w.server.kill()
		if w.gate != nil {
			// Without this the client would still get the bytes that the system has taken from the
			// server, and they may be all that was missing.
			w.gate.disconnect()
		}
	} else {
		ts.Check(w.server.cmd.Process.Signal(syscall.SIGTERM))
		<-w.server.done
		err := w.server.cmd.Wait()
		fmt.Fprint(ts.Stderr(), w.server.said)
		ts.Check(err)
	}
	w.server = nil
}

func (w *world) start(ts *testscript.TestScript, args []string) {
	if w.server != nil {
		ts.Fatalf("a server is running")
	}
	data := "sluice-data"
	if len(args) > 0 {
		data, args = args[0], args[1:]
	}
	cmd := exec.Command(
		"sluice",
		append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "", "--data", data}, args...)...,
	)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GORACE", "GOCOVERDIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	started, err := launch(cmd)
	ts.Check(err)
	w.server = started
	w.ends = append(w.ends, started.kill)
	if w.gate != nil {
		w.gate.to(started.url)
	}
	fmt.Fprint(ts.Stderr(), started.greeting)
	token, err := os.ReadFile(filepath.Join(ts.MkAbs(data), "admin-token"))
	ts.Check(err)
	ts.Setenv("SLUICE_URL", started.url)
	ts.Setenv("SLUICE_TOKEN", strings.TrimSpace(string(token)))
}

// gate hold BYTES
//
// sets GATE to the address of a gate before the server. It lets so many bytes pass, both directions
// together, and then stands still. Each gate has its own address. The last one also leads to a
// server that is started later.
//
// gate wait
//
// returns when something stands still there.
//
// gate open
//
// lets everything pass, from now on.
func gateCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	switch {
	case !neg && len(args) == 2 && args[0] == "hold" && w.server != nil:
		n, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		w.gate, err = newGate(n)
		ts.Check(err)
		w.gate.to(w.server.url)
		w.ends = append(w.ends, w.gate.close)
		ts.Setenv("GATE", "http://"+w.gate.listener.Addr().String())
	case !neg && len(args) == 1 && args[0] == "wait" && w.gate != nil:
		w.gate.wait()
	case !neg && len(args) == 1 && args[0] == "open" && w.gate != nil:
		w.gate.open()
	default:
		usage(ts, false, "gate hold BYTES | wait | open, with a server running")
	}
}

// proxy BYTES
//
// sets PROXY to the address of a proxy before the server. It refuses longer bodies with a page of
// HTML, as nginx does.
func proxyCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	usage(ts, !neg && len(args) == 1 && w.server != nil, "proxy BYTES, with a server running")
	most, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	to, err := url.Parse(w.server.url)
	ts.Check(err)
	p := newProxy(to, most)
	w.ends = append(w.ends, p.Close)
	ts.Setenv("PROXY", p.URL)
}

// random FILE BYTES
//
// makes a file of random bytes.
func randomFile(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "random FILE BYTES")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	b := make([]byte, n)
	rand.NewChaCha8(seed).Read(b)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o666))
}

var uuid = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// id VAR [PATTERN]
//
// sets VAR to the id on the one line of standard output that matches (the only line).
func captureID(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 1 || len(args) == 2), "id VAR [PATTERN]")
	pattern, err := regexp.Compile(append(args, "")[1])
	ts.Check(err)
	var lines []string
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if pattern.MatchString(strings.TrimSpace(line)) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !uuid.MatchString(lines[0]) {
		ts.Fatalf("not one line with an id, but: %q", lines)
	}
	ts.Setenv(args[0], uuid.FindString(lines[0]))
}

var flagOfHelp = regexp.MustCompile(`(?m)^ +(?:-\w, )? *(--[a-z0-9-]+)`)

// flags FLAG…
//
// says which flags the help that was printed last must explain: --help, --json and these, and no
// others.
func flagsOfHelp(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg, "flags FLAG…")
	want := append([]string{"--help", "--json"}, args...)
	var got []string
	for _, match := range flagOfHelp.FindAllStringSubmatch(ts.ReadFile("stdout"), -1) {
		got = append(got, match[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		ts.Fatalf("the help explains %v, not %v", got, want)
	}
}
