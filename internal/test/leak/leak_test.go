package leak

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Check(m).Run()) }

// Each kind of leak is named, and is named no more once it is gone.
func TestWhatIsLeftIsNamed(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("needs /proc")
	}
	dir := t.TempDir()
	before := descriptors()
	says := func(want string) {
		t.Helper()
		err := left(before, dir)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	says("")

	f, err := os.Create(filepath.Join(dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	says("an open descriptor of " + f.Name())
	f.Close()
	says("the file x")
	os.Remove(f.Name())
	says("")

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	says("an open descriptor of pipe")
	r.Close()
	w.Close()
	says("")

	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	says("sleep 60")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	says("")
}
