package pebblemeta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// overlay is a file system in which files in memory replace some files of a folder.
type overlay struct {
	vfs.FS
	mem *vfs.MemFS
	dir string
}

// Open implements vfs.FS.
func (o overlay) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if f, err := o.mem.Open(name, opts...); err == nil && name != o.dir {
		return f, nil
	}
	return o.FS.Open(name, opts...)
}

// Stat implements vfs.FS.
func (o overlay) Stat(name string) (vfs.FileInfo, error) {
	if info, err := o.mem.Stat(name); err == nil && name != o.dir {
		return info, nil
	}
	return o.FS.Stat(name)
}

// List implements vfs.FS.
func (o overlay) List(dir string) ([]string, error) {
	names, err := o.FS.List(dir)
	if err != nil || dir != o.dir {
		return names, err
	}
	more, err := o.mem.List(dir)
	names = append(names, more...)
	slices.Sort(names)
	return slices.Compact(names), err
}

// putTable puts a table in memory in the place of one on the disk. It has the same rows, except
// those in the holes.
func (o overlay) putTable(opts Options, path string, t tableInfo, holes []hole) error {
	f, err := o.mem.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	po := &pebble.Options{FormatMajorVersion: pebbleFormat}
	po.EnsureDefaults()
	w := sstable.NewRawWriter(objstorageprovider.NewFileWritable(f),
		po.MakeWriterOptions(t.level, pebbleFormat.MaxTableFormat()))
	if len(holes) != 1 || !bytes.Equal(holes[0].lo, t.lo) || !bytes.Equal(holes[0].hi, append(slices.Clone(t.hi), 0)) {
		err = copyTable(opts.FS, path, w, t.hi, holes)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("reading the rest of table %s: %w", path, err)
	}
	return nil
}

// copyTable copies the rows and the range deletions of a table, except the rows in its holes.
func copyTable(disk vfs.FS, path string, w sstable.RawWriter, last []byte, holes []hole) (err error) {
	f, err := disk.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, tableOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	err = copyRows(it, w, last, holes)
	_ = it.Close() // the rows are copied, or the error is that of a hole
	if err != nil {
		return err
	}
	dels, err := r.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms,
		sstable.ReadEnv{Block: block.NoReadEnv})
	if err != nil || dels == nil {
		return err
	}
	defer dels.Close()
	span, err := dels.First()
	for ; err == nil && span != nil; span, err = dels.Next() {
		if err := w.EncodeSpan(*span); err != nil {
			return err
		}
	}
	return err
}

// copyRows copies the rows of a table between its holes. The step that enters a corrupt block
// fails, but all rows before that block have been given by then.
func copyRows(it sstable.Iterator, w sstable.RawWriter, last []byte, holes []hole) error {
	kv := it.First()
	for i := 0; ; i++ {
		for ; kv != nil && (i == len(holes) || bytes.Compare(kv.K.UserKey, holes[i].lo) < 0); kv = it.Next() {
			row, _, err := kv.Value(nil)
			if err == nil {
				err = w.Add(kv.K, row, false)
			}
			if err != nil {
				return err
			}
		}
		if i == len(holes) {
			return it.Error()
		}
		if bytes.Compare(holes[i].hi, last) > 0 {
			return nil
		}
		kv = it.SeekGE(holes[i].hi, 0)
	}
}
