package pebblemeta

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/internal/pebblelog"
)

// Pebble takes the first invalid chunk of a log for its torn end, and ignores what follows, unless
// a later block of 32 KiB says otherwise. So one corrupt byte would take up to 32 KiB of commits
// with it in silence, and in the MANIFEST everything behind it. Therefore the logs are checked
// before Pebble opens them:
//
//   - Close writes the file CLEAN, with the checksum of each log. Open compares these, and removes
//     it.
//   - After a stop that was not clean, no whole chunk may follow an invalid one that had been
//     synced before that chunk was written.
//
// One case can't be told from a torn write: corruption of the last synced group of a log that
// nobody has closed.

// cleanFile is written by a clean stop. It holds a line for each log (its length, CRC-32C and
// name), and at the end the CRC-32C of these lines.
const cleanFile = "CLEAN"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCorruptLog: a log is damaged. Nothing was changed.
var errCorruptLog = errors.New("it is damaged where it was safe already; " +
	"restore a backup, or ask for help before anything is removed")

// checkLogs refuses a database whose logs are corrupt. marked means that the folder has a CLEAN,
// which must be removed before the next change.
func checkLogs(disk vfs.FS, dir string) (marked bool, err error) {
	clean, err := readAll(disk, disk.PathJoin(dir, cleanFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, checkTails(disk, dir)
	case err != nil:
		return false, err
	}
	lines, err := describeLogs(disk, dir)
	if err != nil {
		return true, err
	}
	if noted, sound := splitChecksum(clean); !sound {
		err = checkTails(disk, dir)
	} else if i := firstChanged(noted, lines); i != "" {
		err = fmt.Errorf("%s: %w", i, errCorruptLog)
	}
	return true, err
}

// unmarkClean removes CLEAN.
func unmarkClean(disk vfs.FS, dir string) error {
	return errors.Join(disk.Remove(disk.PathJoin(dir, cleanFile)), syncDir(disk, dir))
}

// firstChanged names the first log in was that is missing from is, or differs there.
func firstChanged(was, is string) string {
	for line := range strings.Lines(was) {
		if !strings.Contains(is, line) {
			return strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:])
		}
	}
	return ""
}

// withChecksum adds the checksum, and splitChecksum takes it away.
func withChecksum(lines string) []byte {
	return fmt.Appendf([]byte(lines), "%08x\n", crc32.Checksum([]byte(lines), castagnoli))
}

func splitChecksum(b []byte) (lines string, sound bool) {
	if len(b) < 9 {
		return "", false
	}
	lines = string(b[:len(b)-9])
	return lines, bytes.Equal(withChecksum(lines), b)
}

// logFiles lists the logs of commits and the current MANIFEST.
func logFiles(disk vfs.FS, dir string) (names []string, err error) {
	desc, err := pebble.Peek(dir, disk)
	if err != nil || !desc.Exists {
		return nil, err
	}
	all, err := disk.List(dir)
	for _, name := range all {
		if strings.HasSuffix(name, ".log") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return append(names, disk.PathBase(desc.ManifestFilename)), err
}

func describeLogs(disk vfs.FS, dir string) (string, error) {
	names, err := logFiles(disk, dir)
	if err != nil {
		return "", err
	}
	var lines strings.Builder
	for _, name := range names {
		data, err := readAll(disk, disk.PathJoin(dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&lines, "%d %08x %s\n", len(data), crc32.Checksum(data, castagnoli), name)
	}
	return lines.String(), nil
}

// markClean writes CLEAN. The database is closed, and the folder still locked.
func markClean(disk vfs.FS, dir string) error {
	lines, err := describeLogs(disk, dir)
	if err != nil || lines == "" {
		return err
	}
	path := disk.PathJoin(dir, cleanFile)
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	// A CLEAN without its whole content counts for nothing. So it need not be renamed into place.
	_, err = f.Write(withChecksum(lines))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), syncDir(disk, dir))
}

// checkTails looks for invalid chunks that are no torn ends.
func checkTails(disk vfs.FS, dir string) error {
	names, err := logFiles(disk, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		number := uint64(0)
		if digits, isLog := strings.CutSuffix(name, ".log"); isLog {
			if number, err = strconv.ParseUint(digits, 10, 32); err != nil {
				continue
			}
		}
		data, err := readAll(disk, disk.PathJoin(dir, name))
		if err == nil {
			if at, yes := pebblelog.Corrupt(data, uint32(number)); yes {
				err = fmt.Errorf("byte %d or one behind it: %w", at, errCorruptLog)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func readAll(disk vfs.FS, path string) ([]byte, error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}
