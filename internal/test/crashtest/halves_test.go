package crashtest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
)

// mishaps are what may happen to the halves of a data folder between a crash and the next start: a
// disk that is not mounted, with or without its mount point, and disks that were exchanged.
var mishaps = map[string]func(disk *crashfs.Disk) error{
	"no metadata":    func(disk *crashfs.Disk) error { return disk.Rename(data+"/meta", "/away") },
	"no content":     func(disk *crashfs.Disk) error { return disk.Rename(data+"/content", "/away") },
	"empty metadata": func(disk *crashfs.Disk) error { return unmounted(disk, data+"/meta") },
	"empty content":  func(disk *crashfs.Disk) error { return unmounted(disk, data+"/content") },
	"exchanged": func(disk *crashfs.Disk) error {
		return errors.Join(
			disk.Rename(data+"/meta", "/away"), disk.Rename(data+"/content", data+"/meta"),
			disk.Rename("/away", data+"/content"),
		)
	},
}

func unmounted(disk *crashfs.Disk, half string) error {
	return errors.Join(disk.Rename(half, "/away"), disk.Mkdir(half, 0o700))
}

// withoutHalves makes sure that the folder that a crash has left does not start, and stays as it
// is, while a half is away. It does not apply if the first start has not finished making both
// halves: then neither can have anything in it.
func (tr *trial) withoutHalves(left *crashfs.Disk, m *model, ms int64) error {
	text, err := durable.ReadFile(left, data+"/folder")
	if errors.Is(err, fs.ErrNotExist) || strings.Contains(string(text), `"state"`) {
		return nil
	}
	if err != nil {
		return err
	}
	for name, happen := range mishaps {
		disk := left.Kill()
		if err := happen(disk); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		before, err := tree(disk, "/")
		if err != nil {
			return err
		}
		if c, _, err := tr.start(disk, m.clone(), ms); err == nil {
			return fmt.Errorf("it starts with %s: %w", name, errors.Join(errHalf, c.w.Close()))
		} else if !strings.Contains(err.Error(), "Nothing was touched") {
			return fmt.Errorf("with %s: %w", name, err)
		}
		after, err := tree(disk, "/")
		if err != nil {
			return err
		}
		if !maps.Equal(before, after) {
			return fmt.Errorf("a start that was refused, with %s, has changed something: %w", name, errHalf)
		}
	}
	return nil
}

var errHalf = errors.New("a half of the data folder is away")

// tree gives everything that is on a disk, without locks.
func tree(disk *crashfs.Disk, dir string) (map[string]string, error) {
	out := map[string]string{}
	names, err := disk.List(dir)
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, failed := disk.Stat(path)
		if failed == nil && info.Dir {
			var inner map[string]string
			inner, failed = tree(disk, path)
			out[path+"/"] = ""
			maps.Copy(out, inner)
		} else if failed == nil && name != "lock" {
			var text []byte
			text, failed = durable.ReadFile(disk, path)
			out[path] = string(text)
		}
		err = errors.Join(err, failed)
	}
	return out, err
}
