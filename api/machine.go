package api

import (
	"io"
	"time"

	"github.com/google/uuid"

	"sluice/session"
)

// machine gives a Server the time and its random bytes.
type machine struct {
	clock session.Clock
	rand  io.Reader
}

func (m machine) now() time.Time { return m.clock.Now() }

// since returns how long ago t was.
func (m machine) since(t time.Time) time.Duration { return m.now().Sub(t) }

// until returns how far ahead t is.
func (m machine) until(t time.Time) time.Duration { return t.Sub(m.now()) }

// requestID makes an id for one request.
func (m machine) requestID() string {
	id, err := uuid.NewV7FromReader(m.rand)
	if err != nil {
		return uuid.Nil.String()
	}
	return id.String()
}
