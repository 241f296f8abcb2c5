package main

import (
	"fmt"

	"sluice/api"
)

type sessionsCmd struct {
	Ls      sessionsLsCmd      `cmd:"" help:"List sessions, of anybody."`
	Stats   sessionsStatsCmd   `cmd:"" help:"Print the engine's figures."`
	Clear   sessionsClearCmd   `cmd:"" set:"patience=${long_patience}" help:"Abort all open sessions, of anybody."`
	Cleanup sessionsCleanupCmd `cmd:"" set:"patience=${long_patience}" help:"End what is past its time to live now."`
}

type sessionsLsCmd struct {
	asking
	Owner string `placeholder:"ID" help:"Only this principal's."`
	State string `default:"open" enum:"open,sealed,finished,aborted,expired,all" help:"Only these: open, sealed, finished, aborted, expired, or all."`
}

// Run lists sessions.
func (c *sessionsLsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	state := c.State
	if state == "all" {
		state = ""
	}
	return pages(func(cursor string) (string, error) {
		page, err := client.AdminSessions(e.ctx, c.Owner, state, cursor, 1000)
		if err == nil && page.NextCursor == "" && len(page.Damaged) > 0 {
			for _, what := range page.Damaged {
				e.failOf("", fmt.Errorf("damaged, and perhaps missing in the list: %s", what))
			}
			err = errSaid
		}
		for _, s := range page.Sessions {
			of := "unknown length"
			if s.BytesExpected != nil {
				of = size(*s.BytesExpected)
			}
			e.print(
				s, "%-20s  %-8s  %s of %s  owner %s  last seen %s", s.SessionID, s.State, size(s.BytesReceived), of,
				clean(s.Owner), s.LastSeen.Format("2006-01-02 15:04:05"),
			)
		}
		return page.NextCursor, err
	})
}

type sessionsStatsCmd struct{ asking }

// Run prints the figures.
func (c *sessionsStatsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	s, err := client.AdminStats(e.ctx)
	if err != nil {
		return err
	}
	oldest := "-"
	if !s.OldestLastSeen.IsZero() {
		oldest = s.OldestLastSeen.Format("2006-01-02 15:04:05")
	}
	e.print(
		s,
		"open %d, sealed %d, received %s of %s, oldest last seen %s\nsince the beginning: begun %d, finished %d, "+
			"aborted %d, expired %d",
		s.Open, s.Sealed, size(s.BytesReceived), size(s.BytesExpected), oldest,
		s.Begun, s.Finished, s.Aborted, s.Expired,
	)
	return nil
}

type sessionsClearCmd struct {
	asking
	Yes bool `help:"Yes, abort everybody's uploads."`
}

// Run aborts all sessions.
func (c *sessionsClearCmd) Run(e *env) error {
	if !c.Yes {
		return usageError("this aborts the open uploads of everybody; say --yes if that is what you want")
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	n, err := client.AdminClearAll(e.ctx)
	if err == nil {
		e.print(api.Cleared{Cleared: n}, "%d sessions aborted", n)
	}
	return err
}

type sessionsCleanupCmd struct{ asking }

// Run ends expired sessions.
func (c *sessionsCleanupCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	n, err := client.AdminCleanupExpired(e.ctx)
	if err == nil {
		e.print(api.CleanedUp{Expired: n}, "%d sessions expired", n)
	}
	return err
}
