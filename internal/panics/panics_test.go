package panics_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"sluice/internal/panics"
	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

func TestTry(t *testing.T) {
	want := errors.New("its own")
	if err := panics.Try(func() error { return want }); err != want {
		t.Errorf("%v", err)
	}
	if err := panics.Try(func() error { return nil }); err != nil {
		t.Errorf("%v", err)
	}
	var lost *panics.Error
	err := panics.Try(func() error { panic("lost") })
	if !errors.As(err, &lost) || lost.Value != "lost" || !strings.Contains(err.Error(), "panic: lost\n") ||
		!strings.Contains(err.Error(), "TestTry") {
		t.Errorf("%v", err)
	}
}
