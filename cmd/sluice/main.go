// Sluice stores files over bad networks and promises to have them. This is the program: the server,
// and the commands that talk to one.
//
// It owns flags, environment, output, exit statuses, and the wiring: wire.go has the whole graph of
// a server, and only this package names concrete stores. The work of the commands is in the
// packages: sender puts, download gets, api.Client sends requests.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the build.
var version = "unknown"

const defaultServer = "http://127.0.0.1:8080"

// defaults has the defaults of flags that several commands have.
func defaults() kong.Vars {
	return kong.Vars{"server": defaultServer, "patience": patience, "long_patience": longPatience}
}

// cli is the command line.
type cli struct {
	JSON bool `name:"json" help:"Print one JSON object a line, errors too."`

	Serve      serveCmd      `cmd:"" help:"Run the server."`
	Put        putCmd        `cmd:"" help:"Store files, folders or a pipe; resumes by itself, also after ^C or kill -9."`
	Get        getCmd        `cmd:"" help:"Fetch what was stored; resumes by itself, and verifies SHA-256."`
	Ls         lsCmd         `cmd:"" help:"List memories, newest first."`
	Rm         rmCmd         `cmd:"" help:"Move memories into the trash, or delete them for good."`
	Undelete   undeleteCmd   `cmd:"" help:"Take memories out of the trash."`
	Capsules   capsulesCmd   `cmd:"" help:"Make, list, change and delete capsules, the containers of memories."`
	Principals principalsCmd `cmd:"" help:"Make, list, change and delete principals: those who may call."`
	Tokens     tokensCmd     `cmd:"" help:"Make, list and revoke tokens."`
	Login      loginCmd      `cmd:"" help:"Sign in at a server's issuer, in any browser, and keep that."`
	Logout     logoutCmd     `cmd:"" help:"End the login at a server, here and at its issuer."`
	Tickets    ticketsCmd    `cmd:"" help:"Make, list and revoke upload tickets: for those who have no account."`
	Links      linksCmd      `cmd:"" help:"Make, list and revoke read links: one memory, for whoever has the link."`
	Whoami     whoamiCmd     `cmd:"" help:"Print who you are to the server, and what you have of your limits."`
	Sessions   sessionsCmd   `cmd:"" help:"Look at everybody's uploads under way, and end them (admins)."`
	Check      checkCmd      `cmd:"" help:"Verify everything in a data folder that no server has open, and repair it."`
	Backup     backupCmd     `cmd:"" help:"Back a data folder up, also while its server runs."`
	Restore    restoreCmd    `cmd:"" help:"Make a data folder of a backup."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// env is the environment of a command.
type env struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool
	outErr         error  // why a result could not be written
	end            func() // gives the log a moment to be written; it may be called again
	restoreSignals func() // lets the next signal end the program at once; it may be called again
}

// usageError is a mistake on the command line: exit status 2.
type usageError string

func (e usageError) Error() string { return string(e) }

// errSaid marks a failure that the command has reported already.
var errSaid = errors.New("failed")

func main() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// Main runs one command and gives its exit status: 0, 1 (it failed) or 2 (the command line is
// wrong). Results go to stdout, everything else to stderr. SIGINT, SIGTERM and SIGHUP end it in
// good order, the second one at once, as kill -9 does. SIGHUP that was ignored at the start (nohup)
// stays so.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop)
	var c cli
	e := &env{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, end: func() {}, restoreSignals: stop}
	defer func() { e.end() }()
	status := -1
	parser, err := kong.New(&c,
		kong.Name("sluice"),
		kong.Description("Takes big and small files over bad networks, and promises to have them."),
		defaults(), kong.Writers(stdout, stderr), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Exit(func(code int) { status = code }), kong.Bind(e),
		kong.KindMapper(reflect.String, kong.MapperFunc(asIs)),
		kong.PostBuild(unsetEmpty),
	)
	if err != nil {
		fmt.Fprintln(stderr, "sluice:", err)
		return 1
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if status >= 0 { // --help has been printed
		return status
	}
	if err != nil {
		e.json = wantsJSON(args)
		e.fail(usageError(fmt.Sprintf("%v (see %s --help)", err, commandOf(err))))
		return 2
	}
	e.json = c.JSON
	if err = refuseEmpty(parsed); err == nil {
		err = parsed.Run(e)
	}
	if err == nil && e.outErr != nil {
		err = fmt.Errorf("a result could not be written: %w", e.outErr)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("stopped")
	}
	switch usage := usageError(""); {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		e.fail(err)
		return 2
	case !errors.Is(err, errSaid):
		e.fail(err)
	}
	return 1
}

// asIs takes an argument as it is. kong's own mapper would change text that is not UTF-8, and file
// names may be such text.
func asIs(ctx *kong.DecodeContext, target reflect.Value) error {
	t, err := ctx.Scan.PopValue("string")
	if err == nil {
		target.SetString(t.String())
	}
	return err
}

// wantsJSON looks for --json on a command line that could not be parsed, so that the error has the
// form that the user asked for.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json")
}

// commandOf names the command of a mistake on the command line, for a hint at its help.
func commandOf(err error) string {
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil {
		for node := wrong.Context.Selected(); node != nil; node = node.Parent {
			if node.Type == kong.CommandNode {
				return node.FullPath()
			}
		}
	}
	return "sluice"
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(e *env) error {
	e.print(map[string]string{"version": version}, "sluice %s", version)
	return nil
}
