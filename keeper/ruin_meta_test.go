package keeper_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/internal/test/crashfs"
	"sluice/session"
)

// Damage of the metadata may end the process (it is Pebble's way), so each is looked at in a child
// process, which goes on with the next until it dies of one.
const (
	envRuin     = "SLUICE_TEST_RUIN" // which one to begin with
	codeRefused = 20                 // the child died of the one that it had named last
	metaSamples = 400                // how many bytes are turned over
	wrongLoss   = "; and that is more than the last commit"
)

// metaRuins are inverted bytes all over the files, and files truncated at some points.
func metaRuins(was map[string][]byte) (all []ruin) {
	total := 0
	for _, b := range was {
		total += len(b)
	}
	stride := max(total/metaSamples, 1)
	at := 0
	for _, path := range slices.Sorted(maps.Keys(was)) {
		b, name := was[path], filepath.Base(path)
		for ; at < len(b); at += stride {
			bad := bytes.Clone(b)
			bad[at] ^= 1 << (at % 8)
			all = append(all, ruin{fmt.Sprintf("byte %d of %s", at, name), false, func(disk *crashfs.Disk) error {
				return write(disk, path, bad)
			}})
		}
		at -= len(b)
		for _, n := range []int{0, 1, len(b) / 3, len(b) / 2, len(b) - 1} {
			if n >= 0 && n < len(b) {
				all = append(all, ruin{
					fmt.Sprintf("%s cut to %d bytes", name, n), false,
					func(disk *crashfs.Disk) error {
						return write(disk, path, b[:n])
					},
				})
			}
		}
	}
	return all
}

// For each inverted byte and each truncated file of the metadata: opening refuses it, or a Check
// names it, or it does not matter. No reader gets wrong bytes, a repair makes nothing worse, and a
// folder that can be opened can be used.
//
// One thing can't be known after a process that died: whether the end of the log is corrupt or was
// never written whole. It takes the last commits with it, all that were synced together. Here each
// was synced alone.
func TestRuinedMetadata(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	if withRace {
		t.Skip("runs without the race detector: go test ./keeper")
	}
	for _, how := range []string{"stopped", "killed"} {
		t.Run(how, func(t *testing.T) {
			counts := map[string]int{}
			for next, last := 0, -1; next != last; {
				last = next
				next += ruinFrom(t, how, next, counts)
			}
			t.Log(counts)
			most := 0
			if how == "killed" {
				most = counts["refused"] / 5
			}
			if counts["lost"] > most {
				t.Errorf("%d were lost in silence", counts["lost"])
			}
			if n := counts["named"] + counts["refused"]; n < metaSamples/4 {
				t.Errorf("only %d were named or refused", n)
			}
		})
	}
}

// ruinFrom runs one child, and gives the number of damages that it has tried.
func ruinFrom(t *testing.T, how string, first int, counts map[string]int) (looked int) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestRuinedMetadataChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), envRuin+"="+how+" "+strconv.Itoa(first))
	out, err := cmd.CombinedOutput()
	ended := false
	for line := range strings.Lines(string(out)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "look":
			looked++
			ended = false
			continue
		case "bad":
			t.Error(rest)
		case "lost":
			if strings.Contains(rest, wrongLoss) {
				t.Error(rest)
			}
		case "named", "harmless", "refused", "all":
		default:
			continue
		}
		ended = true
		counts[word]++
	}
	if !ended {
		if code := cmd.ProcessState.ExitCode(); code != codeRefused {
			t.Fatalf("the child ended with %v:\n%s", err, out)
		}
		counts["refused"]++
	}
	return looked
}

// TestRuinedMetadataChild is the child. For each damage it prints "look", and then the result.
func TestRuinedMetadataChild(t *testing.T) {
	how, from, _ := strings.Cut(os.Getenv(envRuin), " ")
	first, err := strconv.Atoi(from)
	if err != nil {
		t.Skip("run by TestRuinedMetadata")
	}
	furnished := crashfs.New()
	f := furnish(t, furnished, nil)
	if how == "killed" {
		furnished = f.Killed
	}
	all := metaRuins(files(t, furnished, "/meta"))
	for _, r := range all[min(first, len(all)):] {
		fmt.Println("look", r.what)
		disk := furnished.Kill()
		if err := r.do(disk); err != nil {
			t.Fatal(err)
		}
		facts := f
		facts.Contents = maps.Clone(f.Contents)
		fmt.Println(ruined(t, disk, facts, r.what))
	}
	fmt.Println("all done")
}

func ruined(t *testing.T, disk *crashfs.Disk, f facts, what string) string {
	h, err := enter(t.Context(), disk, nil, f.Secret)
	if err != nil {
		return fmt.Sprintf("refused %s: %v", what, err)
	}
	defer h.leave()
	found, sum, err := h.check(false)
	if err != nil {
		return fmt.Sprintf("refused %s: the check: %v", what, err)
	}
	right, err := h.readAll(f)
	if err != nil {
		return fmt.Sprintf("bad %s: %v", what, err)
	}
	up, err := h.uploads.Status(h.ctx, h.me, f.Open)
	whole := err == nil && slices.Equal(up.Received, f.Received) && len(right) == len(f.Contents)
	if sum.Wrong == 0 && !whole {
		loss := ""
		if strings.Contains(what, ".log cut") { // a power loss does that too
			return "lost " + what
		}
		if len(right) != len(f.Contents) || err != nil || session.Total(f.Received)-session.Total(up.Received) > 16 {
			loss = wrongLoss
		}
		return fmt.Sprintf("lost %s: %d of %d memories are there, the upload under way has %v (%v)%s",
			what, len(right), len(f.Contents), up.Received, err, loss)
	}
	if sum.Wrong > 0 {
		if _, _, err := h.check(true); err != nil {
			return fmt.Sprintf("named %s: %s; the repair: %v", what, list(found), err)
		}
		after, err := h.readAll(f)
		for id := range right {
			if err == nil && !after[id] {
				return fmt.Sprintf("bad %s: after the repair memory %s is not there any more", what, id)
			}
		}
		if err != nil {
			return fmt.Sprintf("bad %s: after the repair: %v", what, err)
		}
	}
	if whole {
		if err := h.goOn(f); err != nil {
			return fmt.Sprintf("bad %s: %v", what, err)
		}
	}
	if sum.Wrong > 0 {
		return fmt.Sprintf("named %s: %s", what, list(found))
	}
	return "harmless " + what
}
