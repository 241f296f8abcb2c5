package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/internal/test/leak"
)

// The test binary is the program if its name is sluice.
func TestMain(m *testing.M) {
	// Else each command of a test ends a second later under the race detector.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	testscript.Main(leak.Check(m), map[string]func(){
		"sluice": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}
