// Sluice stores files over bad networks and promises to have them. This is the program: the server, and the commands that talk to one.
//
// It owns flags, environment, what is printed, exit statuses, and the wiring (serve.go is the only place that names concrete stores). What the
// commands do is in the packages: sender puts, download gets, api.Client asks.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the build.
var version = "unknown"

const defaultServer = "http://127.0.0.1:8080"

// cli is the command line.
type cli struct {
	JSON bool `name:"json" help:"Print one JSON object a line, errors too."`

	Serve    serveCmd    `cmd:"" help:"Run the server."`
	Put      putCmd      `cmd:"" help:"Store files, folders or a pipe; resumes by itself, also after ^C or kill -9."`
	Get      getCmd      `cmd:"" help:"Fetch what was stored; resumes by itself, and verifies SHA-256."`
	Ls       lsCmd       `cmd:"" help:"List memories, newest first."`
	Rm       rmCmd       `cmd:"" help:"Move memories into the trash, or delete them for good."`
	Undelete undeleteCmd `cmd:"" help:"Take memories out of the trash."`
	Capsules capsulesCmd `cmd:"" help:"Make, list, change and delete capsules, the containers of memories."`
	Sessions sessionsCmd `cmd:"" help:"Look at everybody's uploads under way, and end them (admins)."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// env is what a command runs in.
type env struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool
}

// usageError is a mistake on the command line: exit status 2.
type usageError string

func (e usageError) Error() string { return string(e) }

// errSaid marks a failure that the command has told of already.
var errSaid = errors.New("failed")

func main() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// Main runs one command and gives its exit status: 0, 1 (it failed) or 2 (the command line is wrong). Results go to stdout, everything else to
// stderr. SIGINT and SIGTERM end it in good order, the second one at once.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	var c cli
	e := &env{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr}
	status := -1
	parser, err := kong.New(&c,
		kong.Name("sluice"), kong.Description("Takes big and small files over bad networks, and promises to have them."),
		kong.Vars{"server": defaultServer}, kong.Writers(stdout, stderr), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Exit(func(code int) { status = code }), kong.Bind(e),
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
	e.json = c.JSON
	if err != nil {
		e.fail(usageError(err.Error() + " (see sluice --help)"))
		return 2
	}
	err = parsed.Run(e)
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

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(e *env) error {
	e.print(map[string]string{"version": version}, "sluice %s", version)
	return nil
}
