// Package backup copies a data folder, while it is in use, into a folder of its own, and makes a
// data folder of that again.
//
// It owns the layout of the backup folder, what is verified on the way, and what a crash at any
// moment leaves. It does not own the stores: it sees the metadata as rows that only their store
// understands, and content as extents at places. It runs no server, and decides nobody's access:
// whoever may read the data folder may back it up.
//
// # What is in a backup
//
// A backup has all rows of one durable state of the metadata, and every extent that they name: of
// stored content, the trash included, and of uploads under way. A recorded extent never changes and
// no place's name is given twice. So the bytes may be copied long after the state was taken, as
// long as the places are not deleted meanwhile (see [Source].Hold), and bytes that an earlier
// backup has copied need not be copied again.
//
// # Format 1
//
//	DIR/BACKUP            "sluice backup, format 1" and the id of the data folder; a newer
//	                      format is refused, and nothing is touched
//	DIR/lock              locked while a backup is being written or read
//	DIR/manifest          JSON, and in the last line the SHA-256 of that: which rows file,
//	                      its SHA-256, and what is in the backup
//	DIR/incomplete        the same, in its place, for what was left of a folder that had lost rows
//	DIR/rows-N            the rows of the Nth backup (see rows.go)
//	DIR/content/SS/PLACE  the bytes of one place, at their offsets in it; SS are the first
//	                      two characters of its name
//
// The manifest makes the backup: its rename completes the new one and replaces the previous one. It
// vouches for the rows by their SHA-256, and the rows for each extent by its CRC-32C and for each
// content by its SHA-256. Files that only the previous backup needs are removed after the manifest
// is on the disk.
package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"sluice/blob"
	"sluice/internal/durable"
	"sluice/internal/system"
)

// The errors that a caller may want to tell apart.
var (
	// ErrNotBackup: the folder holds something else, or the backup of another data folder.
	ErrNotBackup = errors.New("not a folder for this backup")
	// ErrNone: the folder holds no finished backup.
	ErrNone = errors.New("there is no finished backup")
	// ErrDamaged: the backup is not what was written.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrFull: the disk that is written to is full.
	ErrFull = errors.New("no space left")
	// ErrKept: the rest of a damaged data folder would replace a whole backup.
	ErrKept = errors.New("the backup that is there is whole, and is kept")
	// ErrIncomplete: the backup is of the rest of a damaged data folder.
	ErrIncomplete = errors.New("the backup is not whole")
	// ErrBusy: somebody else is writing or reading this backup.
	ErrBusy = errors.New("in use by another backup or restore")
)

// Frozen is one durable state of the metadata.
type Frozen interface {
	// Walk visits all rows in the order of their keys. visit must not keep key or row. lost is
	// called for rows from one key up to another that can't be read. An error of lost ends the
	// walk; without one it goes on.
	Walk(ctx context.Context, visit func(key, row []byte) error, lost func(from, to []byte, why error) error) error
	Close()
}

// Decode gives the value of a row: a session.Session, a session.Entry, a row of the catalog as its
// table's type, or nil for a row that only leads to other rows.
type Decode func(key, row []byte) (any, error)

// Source is a data folder that is backed up. Log may be left out.
type Source struct {
	// ID tells the folder from all others, except those restored from its backups; see [Identity].
	ID string
	// Freeze gives the newest durable state.
	Freeze func(ctx context.Context) (Frozen, error)
	Decode Decode
	// Rows is the version of the rows.
	Rows    int
	Content blob.Reader
	// Salvage goes on without rows that can't be read. Otherwise they end the backup.
	Salvage bool
	// Hold keeps places from being deleted until release is called. It is called before Freeze.
	Hold func() (release func())
	Log  *slog.Logger
}

// Summary says what is in a backup.
type Summary struct {
	Made     time.Time `json:"made"`
	Memories int64     `json:"memories"` // those in the trash included
	Contents int64     `json:"contents"`
	Sessions int64     `json:"sessions"` // open uploads
	Pieces   int64     `json:"pieces"`   // recorded of those
	Rows     int64     `json:"rows"`
	Bytes    int64     `json:"bytes"` // of contents and pieces
}

// Damage is content that could not be copied: the data folder itself does not have it whole any
// more.
type Damage struct {
	Capsule string `json:"capsule,omitempty"` // empty: a piece of an upload under way, which will be asked for again
	SHA256  string `json:"sha256,omitempty"`
	Place   string `json:"place,omitempty"`
	Off     int64  `json:"off"`
	Len     int64  `json:"len"`
	CRC32C  uint32 `json:"crc32c"`
	Reason  string `json:"reason"`
}

// String names it for people.
func (d Damage) String() string {
	if d.Capsule == "" {
		return fmt.Sprintf("a piece of an upload under way, bytes %d to %d of place %s: %s",
			d.Off, d.Off+d.Len, d.Place, d.Reason)
	}
	return fmt.Sprintf("content %s of capsule %s: %s", d.SHA256, d.Capsule, d.Reason)
}

// key tells one damage from another.
func (d Damage) key() string {
	if d.Capsule != "" {
		return d.Capsule + "/" + d.SHA256
	}
	return fmt.Sprintf("%s %d %d %08x", d.Place, d.Off, d.Len, d.CRC32C)
}

// Missing are rows that could not be read, from one key up to another, in hex.
type Missing struct {
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	Why  string `json:"why"`
}

// Has reports whether a row of this key may be among them.
func (m Missing) Has(key []byte) bool {
	k := hex.EncodeToString(key)
	return m.From <= k && (m.To == "" || k < m.To)
}

// Result is what a backup, or a restore, did.
type Result struct {
	Summary
	// Number counts the backups in the folder.
	Number uint64 `json:"number"`
	// Copied is how many of Bytes were copied; the others were there.
	Copied int64 `json:"copied_bytes"`
	// Damaged is what is not whole: in the data folder when it was backed up, or in the backup when
	// it was salvaged.
	Damaged []Damage `json:"damaged,omitempty"`
	// Missing are rows that the data folder did not have any more.
	Missing []Missing `json:"missing,omitempty"`
}

// Progress gets the number of bytes that are done; total is -1 if it is not known.
type Progress func(done, total int64)

// identity is the file in the data folder that tells it from others.
const identity = "id"

var validID = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// Identity gives the id of a data folder, and draws one from random if there is none yet. No other
// process may use the folder.
func Identity(on durable.FS, data string, random io.Reader) (string, error) {
	path := filepath.Join(data, identity)
	text, err := durable.ReadFile(on, path)
	if errors.Is(err, fs.ErrNotExist) {
		id, err := system.Text(random)
		if err != nil {
			return "", err
		}
		return id, SetIdentity(on, data, id)
	}
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(text))
	if !validID.MatchString(id) {
		return "", fmt.Errorf("%s does not hold an id: %.40q", path, text)
	}
	return id, nil
}

// SetIdentity gives a data folder its id.
func SetIdentity(on durable.FS, data, id string) error {
	return durable.WriteFile(on, filepath.Join(data, identity), []byte(id+"\n"), 0o600)
}
