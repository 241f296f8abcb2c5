package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"sluice/access"
	"sluice/audit"
	"sluice/catalog"
	"sluice/session"
)

// audited says which requests of a route make a record in the audit log. Each route has to state
// it. Beside what is listed here, the first use of a token makes a record on every route that asks
// for one.
type audited uint8

const (
	_             audited = iota
	auditNothing          // no request of it: it is open to anybody
	auditRefusals         // requests that access or a quota has refused
	auditAdmins           // the same, and good answers to admins: they may show what is others'
	auditAlways           // every request, with what it has changed
)

// auditor makes the records of requests.
type auditor struct {
	log     *audit.Log
	signIns signIns
	floods  [len(floodCodes)]throttle
	ended   throttle // of Unauthenticated, with a token that was good once
	leftOut atomic.Int64
}

// floodCodes are the kinds of refusals that are throttled each by itself, so that a flood of one
// hides none of another. The last one stands for all others.
var floodCodes = [...]Code{
	CodeUnauthenticated, CodeForbidden, CodeNotFound, CodeQuotaExceeded, CodeResourceExhausted, "",
}

// flood gives the throttle of a refusal.
func (a *auditor) flood(code Code, token string) *throttle {
	if code == CodeUnauthenticated && token != "" {
		return &a.ended
	}
	for i, c := range floodCodes[:len(floodCodes)-1] {
		if c == code {
			return &a.floods[i]
		}
	}
	return &a.floods[len(floodCodes)-1]
}

// reportLeftOut makes a record for each kind of which records were left out in a second that is
// over, or, with all, in this one.
func (a *auditor) reportLeftOut(now time.Time, all bool) {
	report := func(t *throttle, code Code) {
		if n := t.take(now, all); n > 0 {
			a.log.Add(now, audit.Record{Event: audit.LeftOut, Code: string(code), Count: n})
		}
	}
	for i := range a.floods {
		report(&a.floods[i], floodCodes[i])
	}
	report(&a.ended, CodeUnauthenticated)
}

// keepReporting reports what was left out until ctx ends.
func (a *auditor) keepReporting(ctx context.Context, now func() time.Time) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.reportLeftOut(now(), false)
		}
	}
}

// auditSignIn makes a record if this is the first use of the caller's token from its address in an
// hour. All tokens that an issuer gives to one principal count as one: they live for minutes.
func (s *Server) auditSignIn(c *call) {
	if s.audits.log == nil {
		return
	}
	now := s.machine.now()
	token := c.caller.Token
	if c.caller.External {
		token = sha256.Sum256([]byte(c.caller.Principal))
	}
	if s.audits.signIns.first(token, c.client, now) {
		r := c.record(audit.SignIn)
		r.Target = audit.Target{}
		s.audits.log.Add(now, r)
	}
}

// audit makes the record of a request that has been answered, or is about to be refused with err.
func (s *Server) audit(c *call, err error) {
	which := auditRefusals // of a request that was refused for its URL
	if c.route != nil {
		which = c.route.audit
	}
	if s.audits.log == nil || which == auditNothing {
		return
	}
	if err == nil {
		if which == auditAlways || which == auditAdmins && c.caller.Admin {
			r := c.record(audit.Act)
			r.Outcome, r.Status = audit.OK, c.status
			c.addChanges(&r)
			s.audits.log.Add(s.machine.now(), r)
		}
		return
	}
	code, _, _ := codeOf(err)
	event := audit.Act
	if refusedByAccess(err, code) {
		event = audit.Refused
	} else if which != auditAlways {
		return
	}
	now := s.machine.now()
	leftOut, ok := s.audits.flood(code, c.caller.TokenID).allow(now)
	if !ok {
		s.audits.leftOut.Add(1)
		return
	}
	if leftOut > 0 {
		s.audits.log.Add(now, audit.Record{Event: audit.LeftOut, Code: string(code), Count: leftOut})
	}
	r := c.record(event)
	r.Code, r.Status, r.Outcome = string(code), responses[code].status, audit.Denied
	if r.Status >= http.StatusInternalServerError {
		r.Outcome = audit.Failed
	}
	c.addMembers(&r)
	s.audits.log.Add(now, r)
}

// refusedByAccess reports whether a request was refused for who its caller is, or for how much it
// has or wants. NotFound is such a refusal only if the thing is there.
func refusedByAccess(err error, code Code) bool {
	switch code {
	case CodeUnauthenticated, CodeForbidden, CodeQuotaExceeded:
		return true
	case CodeResourceExhausted: // a put that waits for another one is everyday life
		return !errors.Is(err, session.ErrBusy) && !errors.Is(err, session.ErrLimit)
	}
	return errors.Is(err, access.ErrHidden)
}

// record begins the record of a request: who asked for what.
func (c *call) record(e audit.Event) audit.Record {
	r := audit.Record{
		Event: e, RequestID: c.id, Action: c.route.name(), Principal: c.caller.Principal, Token: c.caller.TokenID,
		Target: c.target,
	}
	if c.client.IsValid() {
		r.Client = c.client.String()
	}
	for name, value := range c.query {
		if name == "owner" {
			name = "principal_id"
		}
		setTarget(&r.Target, name, value)
	}
	for _, name := range targetMembers {
		setTarget(&r.Target, name, c.req.PathValue(name))
	}
	return r
}

// name is the name of the operation, without the path's parameters; "" for no operation.
func (r *route) name() string {
	switch {
	case r == nil:
		return ""
	case r.auth == linked:
		return "read_link"
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(r.path, "/v1/"), "/")
	return name
}

// targetMembers are the members, parameters and parts of paths that say what a request is about.
var targetMembers = []string{
	"capsule_id", "memory_id", "session_id", "principal_id", "token_id", "ticket_id", "link_id",
}

// setTarget sets an id of a target. It leaves out a value that is no id: a client may send any
// text.
func setTarget(t *audit.Target, name, value string) {
	switch {
	case name == "capsule_id" && catalog.ValidCapsuleID(value):
		t.Capsule = wholeSecrets.ReplaceAllLiteralString(value, hidden)
	case name == "memory_id" && isID(value):
		t.Memory = value
	case name == "session_id":
		if _, err := session.ParseID(value); err == nil {
			t.Session = value
		}
	case name == "principal_id" && isID(value):
		t.Principal = value
	case name == "token_id" && isID(value):
		t.Token = value
	case name == "ticket_id" && isID(value):
		t.Ticket = value
	case name == "link_id" && isID(value):
		t.Link = value
	}
}
