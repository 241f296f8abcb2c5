package system_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"testing"

	"sluice/internal/system"
	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

func TestTextIsDrawnFromWhatIsGiven(t *testing.T) {
	draw := func(r io.Reader) string {
		text, err := system.Text(r)
		if err != nil || !regexp.MustCompile(`^[A-Z2-7]{26}$`).MatchString(text) {
			t.Fatalf("%q, %v", text, err)
		}
		return text
	}
	if a, b := draw(system.Random{}), draw(system.Random{}); a == b {
		t.Error("drawn twice:", a)
	}
	fixed := []byte("\x00\x19\x1a\x1f\x20\xff0123456789abcdefghijklmn")
	if a, b := draw(bytes.NewReader(fixed)), draw(bytes.NewReader(fixed)); a != b || a[:6] != "AZ27A7" {
		t.Errorf("%s and %s of the same bytes", a, b)
	}
	if text, err := system.Text(bytes.NewReader(fixed[:25])); !errors.Is(err, io.ErrUnexpectedEOF) || text != "" {
		t.Errorf("%q, %v of too few bytes", text, err)
	}
}
