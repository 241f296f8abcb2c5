package sender_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"sluice/api"
)

const chunk = 256 << 10

// wire fakes the other end: sessions and memories in memory, with as much of API.md as a sender can
// notice. mishap, if set, makes requests fail: it sees each request first, and returns true if it
// has answered it.
type wire struct {
	t      *testing.T
	client *api.Client

	ticket *api.TicketLimits // of the client, if it has a ticket

	mu           sync.Mutex
	mishap       func(w http.ResponseWriter, r *http.Request) bool
	beforeAnswer func(op string) // runs before an operation is answered
	sessions     map[string]*upload
	idems        map[string]*upload
	memories     map[string]*memory
	ops          []string // operations, in order
	puts         []int64  // sizes of the bodies that were accepted whole
}

type upload struct {
	api.Session
	data []byte
	have []bool
}

type memory struct {
	api.Memory
	data    []byte
	deleted bool
}

func emptyWire(t *testing.T) *wire {
	return &wire{t: t, sessions: map[string]*upload{}, idems: map[string]*upload{}, memories: map[string]*memory{}}
}

func newWire(t *testing.T) *wire {
	w := emptyWire(t)
	srv := httptest.NewUnstartedServer(w)
	srv.Start()
	tr := &http.Transport{MaxIdleConnsPerHost: 8}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	w.client = api.NewClient(srv.URL, "token", &http.Client{Transport: tr})
	return w
}

func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	mishap := w.mishap
	w.mu.Unlock()
	if mishap != nil && mishap(rw, r) {
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	// The whole body, or a part of it: only ranges keep a part.
	body, readErr := io.ReadAll(r.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops = append(w.ops, parts[0])
	if readErr != nil && parts[0] != "uploads_put_range" {
		panic(http.ErrAbortHandler)
	}
	status, out := w.serve(parts, r, body)
	if w.beforeAnswer != nil {
		w.beforeAnswer(parts[0])
	}
	switch p, bad := out.(api.Problem); {
	case bad:
		p.Status = status
		rw.Header().Set("Content-Type", "application/problem+json")
		rw.WriteHeader(status)
		json.NewEncoder(rw).Encode(p)
	case out == nil:
		rw.Header().Set("Upload-Received", strconv.Itoa(len(body)))
		rw.WriteHeader(http.StatusNoContent)
	default:
		rw.Header().Set("Content-Type", "application/json")
		if err := jsonv2.MarshalWrite(rw, out); err != nil { // as the server does: a list is never null
			w.t.Error(err)
		}
	}
}

func problem(c api.Code) api.Problem {
	return api.Problem{Fault: api.Fault{Code: c, Detail: string(c)}}
}

func (w *wire) serve(parts []string, r *http.Request, body []byte) (int, any) {
	if w.ticket != nil && strings.HasPrefix(parts[0], "memories_") {
		return 403, problem(api.CodeForbidden)
	}
	switch parts[0] {
	case "upload_config":
		return 200, api.UploadConfig{
			ChunkSize: chunk, ChunkSizeMin: 4096, ChunkSizeMax: 64 << 20, MaxChunks: 16384, MaxBytes: 64 << 20,
			Ticket: w.ticket,
		}
	case "memories_create":
		return w.create(r, body)
	case "memories_read":
		if m := w.memories[parts[1]]; m != nil && !m.deleted {
			return 200, m.Memory
		}
		return 404, problem(api.CodeNotFound)
	case "uploads_begin":
		return w.begin(body)
	case "uploads_list":
		var l api.SessionList
		for _, u := range w.sessions {
			if u.State == "open" {
				l.Sessions = append(l.Sessions, w.view(u, false))
			}
		}
		return 200, l
	}
	id := ""
	if len(parts) > 1 {
		id = parts[1]
	} else {
		var in struct {
			SessionID string `json:"session_id"`
		}
		json.Unmarshal(body, &in)
		id = in.SessionID
	}
	u := w.sessions[id]
	switch {
	case u == nil:
		return 404, problem(api.CodeNotFound)
	case parts[0] == "uploads_status":
		return 200, w.view(u, r.URL.Query().Get("crc") == "true")
	case parts[0] == "uploads_finish":
		return w.finish(u, body)
	case u.State == "finished":
		return 409, problem(api.CodeAlreadyFinished)
	case parts[0] == "uploads_abort":
		u.State = "aborted"
		return 204, nil
	case u.State == "aborted":
		return 409, problem(api.CodeAlreadyAborted)
	}
	n, _ := strconv.ParseInt(parts[2], 10, 64)
	if parts[0] == "uploads_put_chunk" {
		n *= chunk
	}
	return w.put(u, n, body, r.URL.Query().Get("replace") == "true")
}

func (w *wire) create(r *http.Request, body []byte) (int, any) {
	q := r.URL.Query()
	if u := w.idems[q.Get("idem")]; u != nil {
		if w.memories[u.MemoryID].deleted {
			p := problem(api.CodeAlreadyFinished)
			p.Deleted = true
			return 409, p
		}
		return 200, w.memories[u.MemoryID].Memory
	}
	m := w.store(api.Meta{Name: q.Get("name"), Path: q.Get("path")}, body)
	w.idems[q.Get("idem")] = &upload{Session: api.Session{State: "finished", MemoryID: m.MemoryID}}
	return 200, m
}

func (w *wire) store(meta api.Meta, b []byte) api.Memory {
	sum := sha256.Sum256(b)
	m := api.Memory{
		MemoryID: fmt.Sprintf("m%d", len(w.memories)+1), CapsuleID: "default", Name: meta.Name, Path: meta.Path,
		Bytes: int64(len(b)), SHA256: hex.EncodeToString(sum[:]),
	}
	w.memories[m.MemoryID] = &memory{Memory: m, data: bytes.Clone(b)}
	return m
}

func (w *wire) begin(body []byte) (int, any) {
	var in api.BeginRequest
	if err := json.Unmarshal(body, &in); err != nil {
		w.t.Error(err)
	}
	u := w.idems[in.Idem]
	if in.Idem == "" || u == nil || u.State == "aborted" {
		now := api.Time{Time: time.Now()}
		u = &upload{Session: api.Session{
			SessionID: fmt.Sprint(len(w.sessions) + 1), State: "open", ChunkSize: chunk, CapsuleID: in.CapsuleID,
			Meta: in.Meta,
			Idem: in.Idem, BytesExpected: in.Meta.Bytes, CreatedAt: now, LastSeen: now,
		}}
		w.sessions[u.SessionID], w.idems[in.Idem] = u, u
	}
	s := w.view(u, false)
	if u.State == "finished" {
		s.Deleted = w.memories[u.MemoryID].deleted
	}
	return 200, s
}

// put stores a body. Without replace it refuses other bytes than the recorded ones.
func (w *wire) put(u *upload, off int64, b []byte, replace bool) (int, any) {
	for int64(len(u.data)) < off+int64(len(b)) {
		u.data, u.have = append(u.data, make([]byte, chunk)...), append(u.have, make([]bool, chunk)...)
	}
	for i, v := range b {
		if at := off + int64(i); u.have[at] && u.data[at] != v && !replace {
			return 409, problem(api.CodeChunkConflict)
		}
	}
	copy(u.data[off:], b)
	for i := range b {
		u.have[off+int64(i)] = true
	}
	w.puts = append(w.puts, int64(len(b)))
	return 204, nil
}

// view returns the session with its missing chunks and bytes. While its length is unknown only gaps
// are missing.
func (w *wire) view(u *upload, crc bool) api.Session {
	s := u.Session
	end := int64(0)
	for i, h := range u.have {
		if h {
			s.BytesReceived, end = s.BytesReceived+1, int64(i)+1
		}
	}
	if s.BytesExpected != nil {
		end = *s.BytesExpected
	}
	there := func(i int64) bool { return i < int64(len(u.have)) && u.have[i] }
	for at := int64(0); at < end; {
		from := at
		for at < end && !there(at) {
			at++
		}
		if at > from {
			s.MissingBytes = append(s.MissingBytes, api.Range{from, at - 1})
		}
		for at < end && there(at) {
			at++
		}
	}
	s.CRC32C = map[string]string{}
	for i := int64(0); i*chunk < end; i++ {
		last := min((i+1)*chunk, end)
		if whole := !slices.ContainsFunc(
			s.MissingBytes, func(r api.Range) bool { return r[0] < last && r[1] >= i*chunk },
		); !whole {
			s.Missing = append(s.Missing, api.Range{i, i})
		} else if crc {
			s.CRC32C[fmt.Sprint(i)] = crcOf(u.data[i*chunk : last])
		}
	}
	return s
}

func crcOf(b []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func (w *wire) finish(u *upload, body []byte) (int, any) {
	var in api.FinishRequest
	if err := json.Unmarshal(body, &in); err != nil {
		w.t.Error(err)
	}
	switch u.State {
	case "finished":
		switch m := w.memories[u.MemoryID]; {
		case m.deleted:
			return 409, problem(api.CodeAlreadyFinished)
		case m.SHA256 != in.SHA256:
			return 422, problem(api.CodeChecksumMismatch)
		default:
			return 200, m.Memory
		}
	case "aborted":
		return 409, problem(api.CodeAlreadyAborted)
	}
	u.BytesExpected = &in.TotalLen
	if s := w.view(u, false); len(s.Missing) > 0 {
		p := problem(api.CodeIncomplete)
		p.Missing, p.MissingBytes = s.Missing, s.MissingBytes
		return 409, p
	}
	b := u.data[:in.TotalLen]
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != in.SHA256 {
		p := problem(api.CodeChecksumMismatch)
		for i, c := range in.ChunkCRC32C {
			if crcOf(b[i*chunk:min(len(b), (i+1)*chunk)]) != c {
				p.Bad = append(p.Bad, api.Range{int64(i), int64(i)})
			}
		}
		return 422, p
	}
	u.State, u.MemoryID = "finished", w.store(u.Meta, b).MemoryID
	return 200, w.memories[u.MemoryID].Memory
}

// count returns how often an operation was served.
func (w *wire) count(op string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.ops {
		if o == op {
			n++
		}
	}
	return n
}
