package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"sluice/internal/durable"
)

const (
	format       = 1
	marker       = "BACKUP"
	markerLine   = "sluice backup, format %d\nof data folder %s\n"
	manifestName = "manifest"
	// incompleteName is the manifest's name if rows are missing. Then the rows may contradict each
	// other, and a program that does not know that finds no backup.
	incompleteName = "incomplete"
	manifestEnd    = "sha256 "
	contentDir     = "content"
	lockName       = "lock"
)

// manifest is the file of that name.
type manifest struct {
	Number     uint64    `json:"number"`
	Of         string    `json:"of"`
	RowsFormat int       `json:"rows_format"`
	Rows       file      `json:"rows"`
	Summary    Summary   `json:"summary"`
	Damaged    []Damage  `json:"damaged,omitempty"`
	Missing    []Missing `json:"missing,omitempty"`
}

// name is the name of its file.
func (m manifest) name() string {
	if len(m.Missing) > 0 {
		return incompleteName
	}
	return manifestName
}

func (m manifest) encode() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	return fmt.Appendf(b, "%s%x\n", manifestEnd, sha256.Sum256(b)), nil
}

func decodeManifest(b []byte) (m manifest, err error) {
	i := bytes.LastIndex(b, []byte("\n"+manifestEnd)) + 1
	if i == 0 || string(b[i:]) != fmt.Sprintf("%s%x\n", manifestEnd, sha256.Sum256(b[:i])) {
		return m, errors.New("its SHA-256 is another")
	}
	if err = json.Unmarshal(b[:i], &m); err == nil &&
		(m.Rows.Name != rowsName(m.Number) || !validID.MatchString(m.Of)) {
		err = errors.New("what it says is impossible")
	}
	return m, err
}

func rowsName(number uint64) string { return fmt.Sprintf("rows-%d", number) }

func rowsNumber(name string) (n uint64, ok bool) {
	_, err := fmt.Sscanf(name, "rows-%d", &n)
	return n, err == nil && name == rowsName(n)
}

// readManifest gives the manifest, or ErrNone, or ErrDamaged.
func readManifest(on durable.FS, dir string) (manifest, error) {
	path := filepath.Join(dir, manifestName)
	b, err := durable.ReadFile(on, path)
	if errors.Is(err, fs.ErrNotExist) {
		path = filepath.Join(dir, incompleteName)
		b, err = durable.ReadFile(on, path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return manifest{}, fmt.Errorf("%w in %s", ErrNone, dir)
	}
	if err != nil {
		return manifest{}, err
	}
	m, err := decodeManifest(b)
	if err == nil && m.name() != filepath.Base(path) {
		err = errors.New("its name is another's")
	}
	if err != nil {
		return manifest{}, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	return m, nil
}

// readMarker gives the id of the data folder whose backups are in dir; fs.ErrNotExist if no backup
// was ever begun there.
func readMarker(on durable.FS, dir string) (id string, err error) {
	path := filepath.Join(dir, marker)
	text, err := durable.ReadFile(on, path)
	if err != nil {
		return "", err
	}
	have := 0
	if n, _ := fmt.Sscanf(string(text), markerLine, &have, &id); n == 0 {
		return "", fmt.Errorf("%w: %s is not one of sluice's: %.60q", ErrNotBackup, path, text)
	}
	if have > format {
		return "", fmt.Errorf("the backup in %s has format %d, and this program knows formats up to %d: use a "+
			"newer sluice", dir, have, format)
	}
	if have < 1 || string(text) != fmt.Sprintf(markerLine, have, id) || !validID.MatchString(id) {
		return "", fmt.Errorf("%w: %s: %.80q", ErrDamaged, path, text)
	}
	return id, nil
}

// checkUsable refuses a folder that is no place for backups of this data folder. It changes
// nothing. begun is false if no backup was begun there yet.
func checkUsable(on durable.FS, dir, id string) (begun bool, err error) {
	of, err := readMarker(on, dir)
	if errors.Is(err, fs.ErrNotExist) {
		names, err := on.List(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		for _, name := range names {
			if name != lockName && !strings.HasPrefix(name, "."+marker+".") {
				return false, fmt.Errorf(
					"%w: %s is neither empty nor a backup: it holds %s; give an empty folder, or one that is not there",
					ErrNotBackup, dir, name)
			}
		}
		return false, err
	}
	if err == nil && of != id {
		err = fmt.Errorf("%w: %s holds the backup of another data folder (%s, and this one is %s)",
			ErrNotBackup, dir, of, id)
	}
	return true, err
}

// prepare makes dir, and locks it. It leaves a folder that holds something else as it is.
func prepare(on durable.FS, dir, id string) (lock durable.File, err error) {
	if _, err := checkUsable(on, dir, id); err != nil {
		return nil, err
	}
	if err := durable.Mkdir(on, dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the backup folder: %w", err)
	}
	if lock, err = lockDir(on, dir); err != nil {
		return nil, err
	}
	begun, err := checkUsable(on, dir, id)
	if err == nil && !begun {
		err = durable.WriteFile(on, filepath.Join(dir, marker), fmt.Appendf(nil, markerLine, format, id), 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// lockDir locks the backup folder.
func lockDir(on durable.FS, dir string) (durable.File, error) {
	f, err := durable.Lock(on, filepath.Join(dir, lockName))
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the backup folder: %w", err)
	}
	return f, nil
}
