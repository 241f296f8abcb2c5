// Package localblob keeps content in files of one folder: the embedded content store. It owns the
// layout of that folder, what of it survives which kind of stop, and the checks after a bad one. It
// knows nothing of memories, and of sessions only the number in a place's name.
//
// # Format 2
//
//	DIR/format                   "sluice content, format 2"; a newer one is refused, and nothing
//	                             is touched. Format 1 had no packs
//	DIR/lock                     locked while a process has the folder open
//	DIR/state                    JSON, replaced whole:
//	                               life      how often the folder was opened: the incarnation
//	                               trusted   the first incarnation since the last unclean stop
//	                               rebooted  the first one since the last such stop of the machine,
//	                                         or since the folder was copied
//	                               boot      the machine's boot id
//	                               folder    device and inode of DIR
//	                               clean     written by Close, when all is on disk; removed by Open
//	DIR/places/SS/NAME           the bytes of one place; SS are the first two digits of NAME
//	DIR/packs/PACK               many places, of small contents
//	DIR/parts                    to which folder both belong (parts.go), as DIR/places/part
//	                             and DIR/packs/part say too
//
//	NAME = <session, 16 hex digits>-<generation, hex>-<incarnation, hex>[-<replacement, hex>]
//
// A place holds the bytes of one session at their offsets in the session (a sparse file). The
// generation is that of the session's last Drop: bytes that replace others go to another file. The
// incarnation is that of the writer: no two incarnations write to one file, and the name alone says
// whether an extent is in doubt after a bad stop. The replacement counts the places before this one
// whose sync has failed.
//
// Content of up to 1 MiB that arrives at once is an item of a pack, so that one file, one entry in
// a folder and one sync serve many. It has a place of its own all the same:
//
//	PACK = p<incarnation, 16 hex digits>-<number, 8>
//	NAME = PACK-<offset of the item, 8>-<bytes of content, 6>-<session, 16>
//
//	│ "sluice pack, format 1\n" key, SHA-256 of both │ item │ item │ hole │ item │ …  at blocks
//	                                                   │
//	             "sluiceit" session, offset, bytes, SHA-256 with the key │ content │ zeros
//
// An item never moves. Appends gather in a batch, which takes the next blocks and is written past
// the cache with one write. The first block, with the key, is on the disk before that. The header
// serves listings alone: names say everything. Its checksum is made with the key, which is never
// given out, so that no content can look like an item. A deletion punches a hole when the last
// reader has left. A pack that gets no more items is removed with its last one. The rest of a
// failed append is punched at once. After a stop in the middle of an append, its rest is listed as
// a place of session 0, since it may as well be an item with a corrupt header: the rows know whose
// bytes these are, if anybody's. If the file system can't punch, there are no packs.
//
// # What is safe when
//
//	WriteAt   nothing yet
//	Commit    the bytes are in the page cache, or the drive has them: they survive the death of the
//	          process; with Power they are on the disk, and so is the folder's entry
//	Persist   they are on the disk, and so is the folder's entry
//
// A failed sync is never tried again: the kernel has forgotten the bytes by then, and a second sync
// would succeed. Bytes that were written since the last good sync are lost, and the store says so.
//
// All bytes go through [writer.WriteAt] in write.go. Small content goes to pack.go. Other content
// goes past the page cache if it arrives fast, see package direct.
package localblob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/singleflight"

	"sluice/blob"
	"sluice/internal/direct"
	"sluice/internal/durable"
	"sluice/internal/system"
)

// Options are what a Store needs beside its folder. Each may be left out.
type Options struct {
	// Durability says what a committed extent survives before Persist.
	Durability durable.Durability
	// Reserve is how many bytes of the disk stay free for everything else (64 MiB).
	Reserve int64
	// Direct says how content that arrives fast is written past the cache.
	Direct direct.Config
	// Packed is the largest content that goes into a pack, in bytes (1 MiB less the header;
	// negative: no content does).
	Packed int64
	// PackSize is the largest length of a pack, in bytes (64 MiB). One failed sync can harm that
	// much, and a listing has to walk through it.
	PackSize int64
	// ReadOnly changes nothing in the folder, even if the last stop was bad. Writes fail with
	// ErrReadOnly.
	ReadOnly bool
	// Files is how many unused files stay open (256). There may be twice as many while some are
	// being closed. A file is synced before it is closed.
	Files int
	// AfterIncarnation is an incarnation that others know of. The one that begins comes after it.
	// If the folder itself does not know of it, the folder is an older copy, in which no content
	// counts as verified.
	AfterIncarnation uint64
	// Rejoin takes the folder for what is left of it, and makes missing places, packs and state
	// anew: its owner says that they are gone for good.
	Rejoin bool
	// FS is the file system that the folder is on (the operating system's).
	FS  durable.FS
	Log *slog.Logger
	// Rand is for the keys of packs, the id of the folders, and gaps between incarnations
	// (crypto/rand).
	Rand io.Reader
}

// Store is an open folder. It is safe for concurrent use.
type Store struct {
	dir  string
	opts Options
	fs   durable.FS
	lock durable.File
	state

	mu           sync.Mutex
	files        map[place]*file
	idle         []*file // open, not failed, and unused: the longest unused first
	closingIdle  bool
	evicting     sync.Mutex
	reserved     durable.File     // nil: none; guarded by evicting
	replacements map[place]uint64 // the next number of a replacement, by the place without one
	closed       bool
	packs        packs

	folders    [packFolder + 1]groupSync
	background sync.WaitGroup
	spaceLeft  atomic.Int64 // bytes that may be written before the free space is asked for again
	checkBufs  sync.Pool    // of *[]byte, for Check
	blockBufs  sync.Pool    // of *[]byte, for Read
	compared   compared
	// comparing reads a whole extent once for all readers that wait for it.
	comparing  singleflight.Group
	pool       *direct.Pool
	syncFailed atomic.Bool
	parts      [2]string // the ids of the folders of places and packs; "": it is not there
}

var _ blob.Store = (*Store)(nil)

const (
	format     = 2
	formatLine = "sluice content, format %d\n"
)

// Open opens the folder, and makes it if it is not there. It refuses a folder that another process
// has open, and one of a newer format.
func Open(dir string, opts Options) (s *Store, err error) {
	if opts.Reserve == 0 {
		opts.Reserve = 64 << 20
	}
	if opts.Packed == 0 || opts.Packed > mostPacked {
		opts.Packed = mostPacked
	}
	if opts.PackSize == 0 {
		opts.PackSize = 64 << 20
	}
	if opts.Files == 0 {
		opts.Files = 256
	}
	if opts.FS == nil {
		opts.FS = durable.OS{}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Rand == nil {
		opts.Rand = system.Random{}
	}
	if opts.ReadOnly {
		opts.FS = readOnly{opts.FS}
	} else if err := durable.MkdirAll(opts.FS, dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the content folder: %w", err)
	}
	lock, err := durable.Lock(opts.FS, filepath.Join(dir, "lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("another sluice server is using this content folder: %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the content folder: %w", err)
	}
	s = &Store{
		dir: dir, opts: opts, fs: opts.FS, lock: lock, files: map[place]*file{},
		replacements: map[place]uint64{}, pool: direct.NewPool(opts.Direct),
	}
	s.packs.init(opts.Direct)
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the content folder %s: %w", dir, err), lock.Close())
	}
	s.evicting.Lock()
	defer s.evicting.Unlock()
	s.reserveDescriptor(true)
	return s, nil
}

// Peek says which incarnation of the folder was the last (0: it was never opened), and whether it
// ended cleanly. It refuses what Open would refuse. rejoin is that of the options. Nothing is
// changed.
func Peek(dir string, on durable.FS, rejoin bool) (incarnation uint64, clean bool, err error) {
	was, err := inspect(on, dir, rejoin)
	if err != nil {
		return 0, false, fmt.Errorf("opening the content folder %s: %w", dir, err)
	}
	return was.state.Incarnation, was.state.Clean, nil
}

// readFormat gives the folder's format; 0 if it has none.
func readFormat(on durable.FS, dir string) (have int, err error) {
	text, err := durable.ReadFile(on, filepath.Join(dir, "format"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(text), formatLine, &have); err != nil || have < 1 {
		return 0, fmt.Errorf("its file format is not one of sluice's: %.60q. %s", text, formatRemedy())
	}
	if have > format {
		return 0, fmt.Errorf("it has format %d, and this program knows formats up to %d: use a newer sluice",
			have, format)
	}
	return have, nil
}

// formatRemedy says what can be done if the file format is lost.
func formatRemedy() string {
	return "Restore a backup; or, where no newer sluice has had the folder, put the file back, with this line: " +
		strings.TrimSpace(fmt.Sprintf(formatLine, format))
}

// prepare checks what is there, makes what is missing, and begins an incarnation.
func (s *Store) prepare() error {
	was, err := inspect(s.fs, s.dir, s.opts.Rejoin)
	if err != nil {
		return err
	}
	if !s.opts.ReadOnly {
		line := fmt.Appendf(nil, formatLine, format)
		if was.format == 0 { // first, so that the folder is known for a content folder from here on
			err = s.writeFile("format", line)
		}
		if err == nil {
			err = s.makeParts(was)
		}
		if err == nil && was.format > 0 && was.format < format { // nothing else is to be done: format 2 only adds packs
			err = s.writeFile("format", line)
		}
		if err != nil {
			return err
		}
	}
	if err := s.noteParts(); err != nil {
		return err
	}
	return s.beginIncarnation(was)
}

// makeFolders makes the folders of the places, with one sync for all.
func (s *Store) makeFolders() error {
	places := filepath.Join(s.dir, "places")
	if err := durable.MkdirAll(s.fs, places, 0o700); err != nil {
		return err
	}
	for i := range packFolder {
		if err := s.fs.Mkdir(s.folder(i), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Also if all are there: the incarnation that made them may have died before it synced.
	return errors.Join(durable.SyncDir(s.fs, places), durable.MkdirAll(s.fs, s.folder(packFolder), 0o700))
}

// requireNoContent refuses a folder that has content but not this file, without which the content
// can't be understood.
func requireNoContent(on durable.FS, dir, file, remedy string) error {
	for i := range packFolder + 1 {
		names, err := on.List((&Store{dir: dir}).folder(i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if names = slices.DeleteFunc(names, func(n string) bool {
			return n == partFile || strings.HasPrefix(n, "."+partFile+".")
		}); len(names) > 0 {
			return fmt.Errorf("there is content, but no file %s that belongs to it. %s", file, remedy)
		}
	}
	return nil
}

// writeFile replaces a file of the store's own.
func (s *Store) writeFile(name string, text []byte) error {
	if s.opts.ReadOnly {
		return nil
	}
	return durable.WriteFile(s.fs, filepath.Join(s.dir, name), text, 0o600)
}

// Close brings everything to the disk, and then writes a mark that the stop was clean. Writers must
// be closed before. If the last stop was not clean, the incarnation before it may have left
// anything in the cache. Then Close syncs the whole disk, which may take a while.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.evicting.Lock()
	s.reserveDescriptor(false)
	s.evicting.Unlock()
	s.background.Wait()
	s.packs.mu.Lock()
	s.retire()
	s.packs.mu.Unlock()
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.files))
	s.mu.Unlock()
	var mu sync.Mutex
	var errs []error
	each(all, func(f *file) {
		var err error
		if f.isOpen() {
			err = errors.Join(f.persist(), f.close())
		}
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	})
	err := errors.Join(errs...)
	if err == nil && s.SinceCrash == s.Incarnation && !s.opts.ReadOnly {
		err = durable.SyncDisk(s.lock)
	}
	if err == nil && !s.syncFailed.Load() {
		s.Clean = true
		err = s.writeState()
	}
	return errors.Join(err, s.lock.Close())
}
