package linear

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sluice/catalog"
	"sluice/session"
)

// kind is the kind of a call.
type kind string

const (
	begin  kind = "begin"
	create kind = "create"
	put    kind = "put"
	finish kind = "finish"
	batch  kind = "finish batch"
	// a part of a batch's answer: each session was visible in that state at some moment meanwhile
	echo     kind = "was finished as"
	abort    kind = "abort"
	status   kind = "status"
	sessions kind = "list sessions"
	trash    kind = "delete"
	purge    kind = "purge"
	restore  kind = "restore"
	update   kind = "update"
	read     kind = "read"
	ping     kind = "ping"
	list     kind = "list"
	counters kind = "counters"
	feed     kind = "events"
	// changes of rights and of the quota
	revokeToken  kind = "revoke the guest's token"
	revokeTicket kind = "revoke the ticket"
	takeRole     kind = "take the guest's role"
	giveRole     kind = "give the guest a role"
	setQuota     kind = "set the quota"
	expel        kind = "the keeper aborts" // an upload of a ticket that has ended

	crash kind = "CRASH" // the end of a server: a call without an answer has happened before it, or never will
)

// answer is the status of an answer, without its content.
type answer string

const (
	ok         answer = "ok"
	otherIdem  answer = "the key is another request's"
	gone       answer = "finished and deleted since"
	incomplete answer = "incomplete"
	mismatch   answer = "checksum mismatch"
	finished   answer = "is finished"
	aborted    answer = "is aborted"
	superseded answer = "superseded"
	notFound   answer = "not found"
	refused    answer = "not allowed"
	usedUp     answer = "the ticket is used up"
	overQuota  answer = "over quota"
)

// row is a memory as an answer shows it.
type row struct {
	id      catalog.MemoryID
	seq     uint64
	content int // -1: of no content that was ever sent
	version string
	by      uint64
	idem    string
	inTrash bool
}

func (r row) String() string {
	return fmt.Sprintf(
		"{%s seq %d content %d v%q by %x idem %q trashed %v}", short(r.id), r.seq, r.content, r.version, r.by, r.idem,
		r.inTrash,
	)
}

func short(id catalog.MemoryID) string { return fmt.Sprintf("m:%x", id[12:]) }

func rowOf(m catalog.Memory) row {
	return row{
		id: m.ID, seq: m.Seq, content: contentOf(m.SHA256, m.Bytes), version: m.Description, by: m.By, idem: m.Idem,
		inTrash: !m.Trashed.IsZero(),
	}
}

// event is one of the capsule's.
type event struct {
	seq     uint64
	what    catalog.EventType
	id      catalog.MemoryID
	session uint64
	name    string
	row     row // of created, updated and restored ones
}

func (e event) String() string {
	if e.session != 0 {
		return fmt.Sprintf("%d:%s s:%x", e.seq, e.what, e.session)
	}
	return fmt.Sprintf("%d:%s %s", e.seq, e.what, short(e.id))
}

func eventOf(e catalog.Event) event {
	out := event{seq: e.Seq, what: e.Type, id: e.ID, session: e.Session}
	if e.Memory != nil {
		out.row, out.name = rowOf(*e.Memory), e.Memory.Name
	}
	return out
}

// shown is a session as an answer shows it: bit i of have is piece i.
type shown struct {
	target

	state   session.State
	have    uint8
	memory  catalog.MemoryID
	deleted bool
}

func (s shown) String() string {
	if s.state == session.Finished {
		return fmt.Sprintf("s:%x finished as %s, deleted %v", s.sid, short(s.memory), s.deleted)
	}
	return fmt.Sprintf("s:%x %s, has %03b", s.sid, s.state, s.have)
}

// counts are the capsule's counters.
type counts struct {
	memories, bytes, trashed, open, reserved int64
	seq                                      uint64
}

// op is one call, and its answer.
type op struct {
	kind      kind
	client    int
	epoch     int   // how many crashes there were before it
	call, ret int64 // on the history's clock, on which no moment is there twice
	lost      bool  // no client has the answer
	answer    answer

	// The request.
	owner   int // whose it is
	key     int // of the few idempotency keys; none: -1
	content int
	chunked bool // a begin that picks its chunk size
	name    string
	sids    []uint64
	with    []uint64 // all sessions of the call that this is a part of
	piece   int
	id      catalog.MemoryID
	ids     []catalog.MemoryID
	version string
	inTrash bool
	only    bool   // of the content alone
	limit   int    // of a list
	from    uint64 // where a page of a list begins, or of the events

	// The answer.
	rows   []row
	shown  []shown
	ending []uint64 // sessions that were being ended meanwhile
	// meanwhile: a right was being taken
	meanwhile bool
	pending   int // creates that ran meanwhile, this one too
	more      bool
	next      string // where the list goes on, for a client that gets the answer
	present   []bool
	counts    counts
	events    []event
}

func (o *op) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, " "+format, args...) }
	b.WriteString(string(o.kind))
	switch o.kind {
	case begin, create:
		say("%s content %d", o.name, o.content)
		if o.key >= 0 {
			say("idem %s", keyName(o.key))
		}
		if o.chunked {
			say("chunked")
		}
	case put, finish, batch, abort, status, echo, expel:
		for _, sid := range o.sids {
			say("s:%x", sid)
		}
		if o.kind == put {
			say("piece %d", o.piece)
		}
		if o.only {
			say("with a wrong digest")
		}
	case trash, purge, restore, read:
		say("%s", short(o.id))
	case update:
		say("%s v%q", short(o.id), o.version)
	case ping:
		for _, id := range o.ids {
			say("%s", short(id))
		}
	case list:
		say("trash %v, at most %d", o.inTrash, o.limit)
		if o.from != math.MaxUint64 {
			say("below %d", o.from)
		}
		if o.only {
			say("of content %d", o.content)
		}
	case feed:
		say("after %d", o.from)
	case setQuota:
		say("to %d memories", o.limit)
	}
	if o.owner != me {
		say("by the %s", [...]string{"", "guest", "ticket"}[o.owner])
	}
	if o.kind == crash {
		return b.String()
	}
	if o.lost {
		return b.String() + " → ?"
	}
	say("→ %s", o.answer)
	for _, s := range o.shown {
		say("%s", s)
	}
	for _, r := range o.rows {
		say("%s", r)
	}
	switch o.kind {
	case list:
		say("more %v", o.more)
	case ping:
		say("%v", o.present)
	case counters:
		say("%+v", o.counts)
	case feed:
		say("%v", o.events)
	}
	return b.String()
}

// text is a history for people: in the order of the calls.
func text(history []*op) string {
	history = slices.Clone(history)
	slices.SortFunc(history, func(a, b *op) int { return int(a.call - b.call) })
	var b strings.Builder
	for _, o := range history {
		fmt.Fprintf(&b, "[%4d %4d] client %d: %s\n", o.call, o.ret, o.client, o)
	}
	return b.String()
}
