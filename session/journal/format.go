package journal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"sluice/session"
)

const (
	magic      = "sluice journal\x00"
	version    = 1
	headerSize = int64(len(magic) + 1)

	frameHead = 8 // length and checksum
	// maxFrame bounds an operation in bytes: a session with as many entries as the engine allows,
	// with the longest notes.
	maxFrame = 256 << 20
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func header() []byte { return append([]byte(magic), version) }

// tornHeader reports whether a crash can have left b of a header: a part of it, or zeros.
func tornHeader(b []byte) bool {
	return bytes.HasPrefix(header(), b) || len(bytes.Trim(b, "\x00")) == 0
}

// checkHeader reads the header and leaves f behind it.
func checkHeader(f *os.File) error {
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(f, b); err != nil {
		return err
	}
	if string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	if v := b[len(magic)]; v != version {
		return fmt.Errorf("%w: it has version %d, this program reads %d", ErrVersion, v, version)
	}
	return nil
}

// frame returns op as it stands in the file.
func frame(op session.Op) ([]byte, error) {
	payload, err := json.Marshal(toStored(op))
	if err != nil {
		return nil, err
	}
	if len(payload) > maxFrame {
		return nil, fmt.Errorf("an operation of %d bytes is longer than a frame of the journal", len(payload))
	}
	b := make([]byte, frameHead, frameHead+len(payload))
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[4:], sum(b[:4], payload))
	return append(b, payload...), nil
}

func sum(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli()), castagnoli(), payload)
}

// image returns a whole file with these operations.
func image(ops []session.Op) ([]byte, error) {
	b := header()
	for _, op := range ops {
		f, err := frame(op)
		if err != nil {
			return nil, err
		}
		b = append(b, f...)
	}
	return b, nil
}

// errNoFrame: no whole frame begins here.
var errNoFrame = errors.New("no frame")

// readFrame reads one frame; left is the number of bytes left of the file.
func readFrame(r io.Reader, left int64) (payload []byte, err error) {
	if left < frameHead {
		return nil, errNoFrame
	}
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n > maxFrame || n > left-frameHead {
		return nil, errNoFrame
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, err
	}
	if sum(head[:4], payload) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, errNoFrame
	}
	return payload, nil
}

// replay does the operations of the file, which is size bytes long, and returns the end of the last
// whole frame.
func replay(f *os.File, size int64, do func(session.Op) error) (end int64, err error) {
	end = headerSize
	r := bufio.NewReaderSize(io.NewSectionReader(f, end, size-end), 64<<10)
	for end < size {
		payload, err := readFrame(r, size-end)
		if errors.Is(err, errNoFrame) {
			return end, checkTornEnd(f, end, size)
		}
		if err != nil {
			return end, err
		}
		op, err := parse(payload)
		if err == nil {
			err = do(op)
		}
		if err != nil {
			return end, fmt.Errorf("%w: operation at byte %d: %w", ErrDamaged, end, err)
		}
		end += frameHead + int64(len(payload))
	}
	return end, nil
}

// checkTornEnd checks that the bytes from end on can be the rest of one interrupted append. Each
// append is synced before the next begins, so no whole frame follows a torn one. If one does, an
// acknowledged operation before it was damaged.
func checkTornEnd(f *os.File, end, size int64) error {
	if size-end > frameHead+maxFrame {
		return fmt.Errorf("%w: %d bytes from byte %d on are no frame", ErrDamaged, size-end, end)
	}
	rest := make([]byte, size-end)
	if _, err := f.ReadAt(rest, end); err != nil {
		return err
	}
	for at := 1; at < len(rest); at++ {
		payload, err := readFrame(bytes.NewReader(rest[at:]), int64(len(rest)-at))
		if err == nil && len(payload) > 0 {
			return fmt.Errorf("%w: at byte %d, while later operations are whole", ErrDamaged, end)
		}
	}
	return nil
}

// stored is an operation in the file, version 1. Strings that may have any bytes are []byte here,
// since JSON's strings are Unicode.
type stored struct {
	Create *storedSession `json:"create,omitempty"`
	Record *storedRecord  `json:"record,omitempty"`
	Move   *storedMove    `json:"move,omitempty"`
	Row    *storedSession `json:"row,omitempty"`
	Totals *storedTotals  `json:"totals,omitempty"`
}

// kinds is how many operations st has. A second one beside the first would be lost.
func (st stored) kinds() (n int) {
	for _, present := range []bool{
		st.Create != nil, st.Record != nil, st.Move != nil, st.Row != nil, st.Totals != nil,
	} {
		if present {
			n++
		}
	}
	return n
}

type storedSession struct {
	ID       uint64          `json:"id"`
	Chunk    int64           `json:"chunk"`
	Bytes    int64           `json:"bytes"`
	Owner    []byte          `json:"owner,omitempty"`
	Idem     []byte          `json:"idem,omitempty"`
	Note     []byte          `json:"note,omitempty"`
	State    uint8           `json:"state"`
	Gen      uint64          `json:"gen"`
	Rev      uint64          `json:"rev"`
	Received []storedRange   `json:"received,omitempty"`
	Dropped  []storedDropped `json:"dropped,omitempty"`
	Began    int64           `json:"began"`     // Unix ms
	LastSeen int64           `json:"last_seen"` // Unix ms
	Seen     int64           `json:"seen"`
	Start    int64           `json:"start,omitempty"`
	Entries  []storedEntry   `json:"entries,omitempty"` // of a row
}

type storedRecord struct {
	ID     uint64        `json:"id"`
	Gen    uint64        `json:"gen"`
	Remove []storedRange `json:"remove,omitempty"`
	Add    []storedEntry `json:"add,omitempty"`
	Drop   storedRange   `json:"drop,omitzero"`
	Length int64         `json:"length"`
	Seen   int64         `json:"seen"`
	Now    int64         `json:"now"`
	Start  int64         `json:"start,omitempty"`
}

type storedMove struct {
	ID   uint64 `json:"id"`
	Gen  uint64 `json:"gen"`
	To   uint8  `json:"to"`
	Next uint64 `json:"next"`
	Seen int64  `json:"seen"`
}

type storedTotals struct {
	Begun    int64 `json:"begun"`
	Finished int64 `json:"finished"`
	Aborted  int64 `json:"aborted"`
	Expired  int64 `json:"expired"`
	Newest   int64 `json:"newest"`
}

type storedRange [2]int64

type storedEntry struct {
	Range storedRange `json:"range"`
	Note  []byte      `json:"note,omitempty"`
}

type storedDropped struct {
	Gen   uint64      `json:"gen"`
	Range storedRange `json:"range"`
}

func toStored(op session.Op) stored {
	switch op.Kind {
	case session.OpCreate:
		s := toStoredSession(op)
		return stored{Create: &s}
	case session.OpRecord:
		c := op.Change
		return stored{Record: &storedRecord{
			ID: uint64(op.ID), Gen: op.Gen,
			Remove: convert(c.Remove, toRange), Add: convert(c.Add, toEntry), Drop: toRange(c.Drop),
			Length: c.Length, Seen: c.Seen, Now: c.Now, Start: c.Start,
		}}
	case session.OpMove:
		return stored{Move: &storedMove{uint64(op.ID), op.Step.Gen, uint8(op.Step.To), op.Step.Next, op.Step.Seen}}
	case session.OpTotals:
		t := op.Totals
		return stored{Totals: &storedTotals{t.Begun, t.Finished, t.Aborted, t.Expired, t.Newest}}
	default:
		s := toStoredSession(op)
		return stored{Row: &s}
	}
}

func toStoredSession(op session.Op) storedSession {
	s := op.Session
	return storedSession{
		ID: uint64(s.ID), Chunk: s.ChunkSize, Bytes: s.BytesExpected,
		Owner: []byte(s.Owner), Idem: []byte(s.Idem), Note: s.Note,
		State: uint8(s.State), Gen: s.Gen, Rev: s.Rev, Received: convert(s.Received, toRange),
		Dropped: convert(s.Dropped, toDropped), Entries: convert(op.Entries, toEntry),
		Began: s.Began.UnixMilli(), LastSeen: s.LastSeen.UnixMilli(), Seen: s.Seen, Start: s.Start,
	}
}

// parse returns the operation that payload, the content of a frame, describes.
func parse(payload []byte) (session.Op, error) {
	var st stored
	d := json.NewDecoder(bytes.NewReader(payload))
	// This version would lose the effect of a member that it does not know.
	d.DisallowUnknownFields()
	if err := d.Decode(&st); err != nil {
		return session.Op{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return session.Op{}, errors.New("something follows it")
	}
	if st.kinds() > 1 {
		return session.Op{}, errors.New("it is several in one")
	}
	switch {
	case st.Create != nil:
		return fromStoredSession(session.OpCreate, st.Create), nil
	case st.Row != nil:
		return fromStoredSession(session.OpRow, st.Row), nil
	case st.Record != nil:
		r := st.Record
		return session.Op{Kind: session.OpRecord, ID: session.SessionID(r.ID), Gen: r.Gen, Change: session.Change{
			Remove: convert(r.Remove, fromRange), Add: convert(r.Add, fromEntry), Drop: fromRange(r.Drop),
			Length: r.Length, Seen: r.Seen, Now: r.Now, Start: r.Start,
		}}, nil
	case st.Move != nil:
		m := st.Move
		step := session.Step{Gen: m.Gen, To: session.State(m.To), Next: m.Next, Seen: m.Seen}
		return session.Op{Kind: session.OpMove, ID: session.SessionID(m.ID), Step: step}, nil
	case st.Totals != nil:
		t := st.Totals
		return session.Op{Kind: session.OpTotals, Totals: session.Stats{
			Begun: t.Begun, Finished: t.Finished, Aborted: t.Aborted, Expired: t.Expired, Newest: t.Newest,
		}}, nil
	}
	return session.Op{}, errors.New("it is empty")
}

func fromStoredSession(kind session.OpKind, st *storedSession) session.Op {
	entries := convert(st.Entries, fromEntry)
	return session.Op{Kind: kind, Entries: entries, Session: session.Session{
		ID: session.SessionID(st.ID),
		Spec: session.Spec{
			ChunkSize: st.Chunk, BytesExpected: st.Bytes,
			Owner: string(st.Owner), Idem: string(st.Idem), Note: st.Note,
		},
		State: session.State(st.State), Gen: st.Gen, Rev: st.Rev,
		Received: convert(st.Received, fromRange), EntryCount: len(entries),
		Dropped: convert(st.Dropped, fromDropped),
		Began:   time.UnixMilli(st.Began).UTC(), LastSeen: time.UnixMilli(st.LastSeen).UTC(), Seen: st.Seen,
		Start: st.Start,
	}}
}

func toRange(r session.Range) storedRange   { return storedRange{r.Off, r.End} }
func fromRange(r storedRange) session.Range { return session.Range{Off: r[0], End: r[1]} }

func toDropped(d session.Dropped) storedDropped { return storedDropped{d.Gen, toRange(d.Range)} }
func fromDropped(d storedDropped) session.Dropped {
	return session.Dropped{Gen: d.Gen, Range: fromRange(d.Range)}
}

func toEntry(e session.Entry) storedEntry { return storedEntry{toRange(e.Range), e.Note} }
func fromEntry(e storedEntry) session.Entry {
	return session.Entry{Range: fromRange(e.Range), Note: e.Note}
}

func convert[A, B any](as []A, f func(A) B) []B {
	if as == nil {
		return nil
	}
	bs := make([]B, len(as))
	for i, a := range as {
		bs[i] = f(a)
	}
	return bs
}
