package main

import (
	"fmt"
	"strings"
	"time"

	"sluice/api"
)

type ticketsCmd struct {
	Create ticketsCreateCmd `cmd:"" help:"Make an upload ticket, and print its secret this once."`
	Ls     ticketsLsCmd     `cmd:"" help:"List upload tickets, without their secrets."`
	Revoke ticketsRevokeCmd `cmd:"" set:"patience=${long_patience}" help:"End upload tickets, and abort what is under way with them."`
}

type ticketsCreateCmd struct {
	asking
	Capsule  string        `arg:"" help:"The capsule that it uploads to."`
	MaxBytes int64         `required:"" placeholder:"BYTES" help:"How large each upload may be."`
	Uploads  int64         `default:"1" placeholder:"N" help:"How many uploads it is for (${default})."`
	MIMEType []string      `name:"mime-type" placeholder:"TYPE" help:"A type that is allowed, such as image/png or image/*; may be repeated. Without it all are."`
	Expires  time.Duration `required:"" placeholder:"DURATION" help:"End it after this time (24h)."`
	Name     string        `help:"What it is for, for people."`
}

// Help is what --help says beside the flags.
func (*ticketsCreateCmd) Help() string {
	return "Whoever has the secret uploads with it, and can do nothing else: SLUICE_TOKEN=SECRET sluice put " +
		"--capsule CAPSULE FILE. The uploads count for you. The ticket ends with your role in the capsule too."
}

// Run makes a ticket. Its secret alone goes to standard output.
func (c *ticketsCreateCmd) Run(e *env) error {
	seconds, err := secondsOf(c.Expires)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	t, err := client.CreateTicket(e.ctx, api.CreateTicketRequest{
		CapsuleID: c.Capsule, Name: c.Name, MaxBytes: c.MaxBytes, MIMETypes: c.MIMEType, Uploads: &c.Uploads,
		ExpiresInSeconds: seconds,
	})
	if err != nil {
		return ofCapsule(c.Capsule, err)
	}
	server := ""
	if c.Server != defaultServer {
		server = "--server " + clean(c.Server) + " "
	}
	e.say("ticket %s for %d uploads to %s of at most %s each, %s", t.TicketID, t.Uploads, clean(t.CapsuleID),
		size(t.MaxBytes), endOf(t.ExpiresAt))
	e.say("to use it: SLUICE_TOKEN=SECRET sluice put %s--capsule %s FILE", server, clean(t.CapsuleID))
	e.say("The secret is shown this once:")
	e.print(t, "%s", clean(t.Secret))
	return nil
}

// secondsOf gives the seconds of a flag --expires.
func secondsOf(d time.Duration) (int64, error) {
	if d < time.Second {
		return 0, usageError("--expires must be a second or more")
	}
	return int64(d / time.Second), nil
}

type ticketsLsCmd struct {
	asking
	Capsule string `placeholder:"ID" help:"Those of this capsule, also of others if you may see them; else those that you have made."`
}

// Run lists tickets, the oldest first.
func (c *ticketsLsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return pages(func(cursor string) (string, error) {
		page, err := client.ListTickets(e.ctx, c.Capsule, cursor, 1000)
		for _, t := range page.Tickets {
			used := fmt.Sprintf("%d of %d", t.Finished, t.Uploads)
			if t.Open > 0 {
				used += fmt.Sprintf(", %d open", t.Open)
			}
			types := ""
			if len(t.MIMETypes) > 0 {
				types = "  " + strings.Join(t.MIMETypes, ",")
			}
			line := fmt.Sprintf(
				"%s  %s  %-16s  %s  at most %s%s  %s", t.TicketID, endOf(t.ExpiresAt), used, t.CapsuleID,
				size(t.MaxBytes), types, t.Name,
			)
			e.print(t, "%s", clean(strings.TrimRight(line, " ")))
		}
		return page.NextCursor, ofCapsule(c.Capsule, err)
	})
}

type ticketsRevokeCmd struct {
	asking
	IDs []string `arg:"" name:"id" help:"Upload tickets, by their ids."`
}

// Run ends tickets.
func (c *ticketsRevokeCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return e.revoke(c.IDs, "ticket_id", client.RevokeTicket)
}

type linksCmd struct {
	Create linksCreateCmd `cmd:"" help:"Make a read link of one memory, and print its address this once."`
	Ls     linksLsCmd     `cmd:"" help:"List read links, without their addresses."`
	Revoke linksRevokeCmd `cmd:"" help:"End read links."`
}

type linksCreateCmd struct {
	asking
	MemoryID  string        `arg:"" name:"memory-id" help:"The memory that it gives out."`
	Downloads *int64        `placeholder:"N" help:"How often the whole memory may be read; without this as often as anybody likes."`
	Expires   time.Duration `required:"" placeholder:"DURATION" help:"End it after this time (24h)."`
	Name      string        `help:"What it is for, for people."`
}

// Help is what --help says beside the flags.
func (*linksCreateCmd) Help() string {
	return "Whoever has the address reads the memory, in a browser or with: sluice get URL. The link ends with your " +
		"role in the capsule too."
}

// Run makes a read link. Its address alone goes to standard output.
func (c *linksCreateCmd) Run(e *env) error {
	seconds, err := secondsOf(c.Expires)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	l, err := client.CreateLink(e.ctx, api.CreateLinkRequest{
		MemoryID: c.MemoryID, Name: c.Name, Downloads: c.Downloads, ExpiresInSeconds: seconds,
	})
	if err != nil {
		e.failOf(c.MemoryID, err)
		return errSaid
	}
	l.URL = strings.TrimRight(c.Server, "/") + l.URL
	e.say("read link %s of %s, %s, %s. The address is shown this once:", l.LinkID, l.MemoryID, timesOf(l.Downloads),
		endOf(l.ExpiresAt))
	e.print(l, "%s", clean(l.URL))
	return nil
}

// timesOf says how often a link may be used.
func timesOf(downloads int64) string {
	if downloads == 0 {
		return "any number of times"
	}
	return fmt.Sprintf("%d downloads", downloads)
}

type linksLsCmd struct {
	asking
	Capsule string `placeholder:"ID" help:"Those of this capsule, also of others if you may see them; else those that you have made."`
}

// Run lists read links, the oldest first.
func (c *linksLsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return pages(func(cursor string) (string, error) {
		page, err := client.ListLinks(e.ctx, c.Capsule, cursor, 1000)
		for _, l := range page.Links {
			used := timesOf(l.Downloads)
			if l.Downloads > 0 {
				used += ", " + size(l.BytesRead) + " read"
			}
			line := fmt.Sprintf(
				"%s  %s  %s  %s  %s  %s", l.LinkID, endOf(l.ExpiresAt), used, l.CapsuleID, l.MemoryID, l.Name,
			)
			e.print(l, "%s", clean(strings.TrimRight(line, " ")))
		}
		return page.NextCursor, ofCapsule(c.Capsule, err)
	})
}

type linksRevokeCmd struct {
	asking
	IDs []string `arg:"" name:"id" help:"Read links, by their ids."`
}

// Run ends read links.
func (c *linksRevokeCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return e.revoke(c.IDs, "link_id", client.RevokeLink)
}
