package main

import (
	"bytes"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// allowsEmpty lists the flags for which an empty text means something.
var allowsEmpty = []string{
	"capsules update --name", "capsules update --subject", "capsules update --controller",
	"capsules update --mime-type", "serve --admin-listen", "serve --audit-log",
}

// eachValue visits all flags and arguments of all commands. needed are the arguments that the
// command requires.
func eachValue(t *testing.T, visit func(command string, v *kong.Value, needed []string)) {
	t.Helper()
	parser, err := kong.New(&cli{}, defaults())
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(false) {
		command := strings.TrimSpace(strings.TrimPrefix(leaf.FullPath(), parser.Model.Name))
		var flags, needed []string
		for _, f := range leaf.Flags {
			if f.Required {
				flags = append(flags, "--"+f.Name+"="+someOf(f.Value))
			}
		}
		for _, v := range leaf.Positional {
			visit(command, v, flags)
			if v.Required {
				needed = append(needed, "x")
			}
		}
		needed = append(needed, flags...)
		for _, f := range leaf.Flags {
			visit(command, f.Value, needed)
		}
	}
}

// someOf is a value that a required flag takes.
func someOf(v *kong.Value) string {
	if v.Target.Type() == reflect.TypeFor[time.Duration]() {
		return "1h"
	}
	return "1"
}

func takesText(v *kong.Value) bool {
	of := v.Target.Type()
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	return of.Kind() == reflect.String
}

// An empty argument is refused before anything is done, with the name of the flag, except if the
// flag's help says what an empty text means.
func TestAnEmptyArgumentIsNoValue(t *testing.T) {
	t.Chdir(t.TempDir())
	tried := map[string]bool{}
	eachValue(t, func(command string, v *kong.Value, needed []string) {
		name := "--" + v.Name
		itself := func(arg string) bool { return strings.HasPrefix(arg, name+"=") }
		needed = slices.DeleteFunc(slices.Clone(needed), itself)
		args := append(append(strings.Fields(command), name+"="), needed...)
		if v.Flag == nil {
			name, args = v.Name, append(append(strings.Fields(command), ""), needed...)
		}
		tried[command+" "+name] = true
		if slices.Contains(allowsEmpty, command+" "+name) {
			if !v.Tag.Has("empty") || !strings.Contains(v.Help, "empty: ") && !strings.Contains(v.Help, "'': ") {
				t.Errorf("%s %s: its help does not say what an empty value means", command, name)
			}
			return
		}
		var stderr bytes.Buffer
		if status := Main(args, strings.NewReader(""), io.Discard, &stderr); status != 2 ||
			takesText(v) && !strings.Contains(stderr.String(), v.Name) {
			t.Errorf("%q: status %d, %s", args, status, stderr.String())
		}
	})
	for _, name := range allowsEmpty {
		if !tried[name] {
			t.Errorf("there is no %s", name)
		}
	}
	if len(tried) < 60 {
		t.Errorf("only %d", len(tried))
	}
}

// A variable that is set to the empty text counts as not set: the flag has its default.
func TestAnEmptyVariableIsNotSet(t *testing.T) {
	envs := map[string]bool{}
	eachValue(t, func(_ string, v *kong.Value, _ []string) {
		for _, name := range v.Tag.Envs {
			envs[name] = true
		}
	})
	if len(envs) < 13 {
		t.Errorf("only %v", slices.Sorted(maps.Keys(envs)))
	}
	want, got := cli{}, cli{}
	parse := func(c *cli, args ...string) {
		t.Helper()
		parser, err := kong.New(c, defaults(), kong.PostBuild(unsetEmpty))
		if err == nil {
			_, err = parser.Parse(args)
		}
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
	}
	commands := [][]string{{"serve"}, {"put", "x"}, {"ls"}, {"check"}, {"backup", "x"}, {"restore", "x"}}
	for name := range envs {
		t.Setenv(name, "x") // so that it is set back
	}
	for _, args := range commands {
		for name := range envs {
			t.Setenv(name, "")
		}
		parse(&got, args...)
		for name := range envs {
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
		parse(&want, args...)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, not %+v", args, got, want)
		}
	}
}
