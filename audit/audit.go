// Package audit has the records of the audit log: who did what, who was refused what, and when.
//
// It owns the form of a record, and that a record is one line of printable ASCII. It does not own
// which requests make a record (api), nor the file that takes them (cmd/sluice). A record has ids,
// names of operations and members, numbers, and words of this program. It has no secret, no content
// and no name that a client has chosen.
package audit

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

// Event is the kind of a record.
type Event string

// The kinds. See docs/audit.md for an example of each.
const (
	SignIn  Event = "sign_in"  // the first use of a token from an address in an hour
	Act     Event = "act"      // something that is audited was done, or was tried and failed
	Refused Event = "refused"  // access or a quota has refused a request
	LeftOut Event = "left_out" // records of a flood that were not made
	Dropped Event = "dropped"  // records that were made and could not be written
	Start   Event = "start"    // the server is ready to serve
	Stop    Event = "stop"     // the server has ended in good order
)

// Origin says what set an act off, if it was no request.
type Origin string

// The origins.
const (
	Keeper Origin = "keeper" // the work that no request asks for
	Socket Origin = "socket" // the control socket in the data folder
	Begin  Origin = "start"  // the start of the server
)

// Outcome is what became of an act.
type Outcome string

// The outcomes.
const (
	OK     Outcome = "ok"
	Denied Outcome = "refused" // nothing was changed
	Failed Outcome = "failed"  // the server's trouble; something may have been changed
)

// Target is what a record is about, as ids. Empty ones are not written.
type Target struct{ Capsule, Memory, Session, Principal, Token, Ticket, Link string }

// Record is one line of the audit log. Empty members are not written, except Event.
type Record struct {
	Event  Event
	Origin Origin
	// Action is the name of the operation: that of the route, such as capsules_update.
	Action    string
	RequestID string
	Client    string // the client's address, without a port
	// Principal and Token are the ids of the caller, as far as it is known.
	Principal, Token string
	Target           Target
	Outcome          Outcome
	Status           int    // of the answer
	Code             string // of the refusal
	Changed          []string
	New              []slog.Attr // new values of roles, bounds and rights
	Count            int64
	Detail           string // for people
}

// attrs gives the members that are written, in their order.
func (r *Record) attrs() []slog.Attr {
	var out []slog.Attr
	text := func(to *[]slog.Attr, name, value string) {
		if value != "" {
			*to = append(*to, slog.String(name, value))
		}
	}
	text(&out, "origin", string(r.Origin))
	text(&out, "action", r.Action)
	text(&out, "request_id", r.RequestID)
	text(&out, "client", r.Client)
	text(&out, "principal_id", r.Principal)
	text(&out, "token_id", r.Token)
	var target []slog.Attr
	text(&target, "capsule_id", r.Target.Capsule)
	text(&target, "memory_id", r.Target.Memory)
	text(&target, "session_id", r.Target.Session)
	text(&target, "principal_id", r.Target.Principal)
	text(&target, "token_id", r.Target.Token)
	text(&target, "ticket_id", r.Target.Ticket)
	text(&target, "link_id", r.Target.Link)
	if len(target) > 0 {
		out = append(out, slog.GroupAttrs("target", target...))
	}
	text(&out, "outcome", string(r.Outcome))
	if r.Status != 0 {
		out = append(out, slog.Int("status", r.Status))
	}
	text(&out, "code", r.Code)
	if len(r.Changed) > 0 {
		out = append(out, slog.Any("changed", r.Changed))
	}
	if len(r.New) > 0 {
		out = append(out, slog.GroupAttrs("new", r.New...))
	}
	if r.Count != 0 {
		out = append(out, slog.Int64("count", r.Count))
	}
	text(&out, "detail", r.Detail)
	return out
}

// Log takes records. It is safe for concurrent use. A nil Log takes none.
type Log struct {
	to      slog.Handler
	dropped func() int64
	records atomic.Int64
}

// New makes a Log that writes each record with one Write, as a line of JSON in ASCII. Write must
// not wait. dropped, which may be nil, tells how many records the writer has dropped since the
// start.
func New(to io.Writer, dropped func() int64) *Log {
	if dropped == nil {
		dropped = func() int64 { return 0 }
	}
	return &Log{dropped: dropped, to: slog.NewJSONHandler(asciiWriter{to}, &slog.HandlerOptions{ReplaceAttr: rename})}
}

// rename gives the members of slog the names and forms of the audit log.
func rename(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("time", a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
	case slog.LevelKey:
		return slog.Attr{}
	case slog.MessageKey:
		a.Key = "event"
	}
	return a
}

// Add writes a record of what happened at a time.
func (l *Log) Add(at time.Time, r Record) {
	if l == nil {
		return
	}
	l.records.Add(1)
	line := slog.NewRecord(at, slog.LevelInfo, string(r.Event), 0)
	line.AddAttrs(r.attrs()...)
	_ = l.to.Handle(context.Background(), line) // the writer counts what it drops
}

// Counts gives how many records were made since the start, and how many of them were dropped.
func (l *Log) Counts() (records, dropped int64) {
	if l == nil {
		return 0, 0
	}
	return l.records.Load(), l.dropped()
}
