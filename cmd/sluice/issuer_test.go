package main

import (
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/internal/test/issuer"
)

// issuer start
//
// starts an OpenID Connect provider, and sets ISSUER to its address.
//
// issuer allow SUBJECT, issuer deny
//
// is the user who enters the code of the login that waits, or of the next one.
//
// issuer give NAME SECONDS [opaque]
//
// says what the next tokens have: a claim name, and so many seconds to live. opaque: access tokens
// are no JWTs.
//
// issuer down, issuer up, issuer revoke
//
// takes it away, brings it back, and ends all logins.
//
// issuer grants N
//
// fails unless so many logins are valid there.
func issuerCommand(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		w := worldOf(ts)
		usage(
			ts, !neg && len(args) > 0 && (args[0] == "start") == (w.issuer == nil), "issuer start, and then the others",
		)
		switch i := w.issuer; args[0] {
		case "start":
			w.issuer = issuer.Listen(t)
			ts.Setenv("ISSUER", w.issuer.URL)
		case "allow":
			usage(ts, len(args) == 2, "issuer allow SUBJECT")
			ts.Check(i.Allow(w.nextCode(ts), args[1]))
		case "deny":
			ts.Check(i.Deny(w.nextCode(ts)))
		case "give":
			usage(ts, len(args) == 3 || len(args) == 4 && args[3] == "opaque", "issuer give NAME SECONDS [opaque]")
			life, err := strconv.Atoi(args[2])
			ts.Check(err)
			i.Device(map[string]any{"name": args[1]}, time.Duration(life)*time.Second, len(args) == 4)
		case "down", "up":
			i.Down(args[0] == "down")
		case "revoke":
			i.RevokeAll()
		case "grants":
			usage(ts, len(args) == 2, "issuer grants N")
			if n := i.Grants(); strconv.Itoa(n) != args[1] {
				ts.Fatalf("%d logins are valid", n)
			}
		default:
			usage(ts, false, "issuer start | allow | deny | give | down | up | revoke | grants")
		}
	}
}

// nextCode waits for a login that no earlier command has answered.
func (w *world) nextCode(ts *testscript.TestScript) string {
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
		if code := w.issuer.LastCode(); code != w.code {
			w.code = code
			return code
		}
	}
	ts.Fatalf("nobody signs in")
	return ""
}
