package main

import (
	"fmt"
	"strings"

	"sluice/api"
)

type capsulesCmd struct {
	Ls     capsulesLsCmd     `cmd:"" help:"List the capsules that you have a role in (admins: all)."`
	Show   capsulesShowCmd   `cmd:"" help:"Print one capsule."`
	Create capsulesCreateCmd `cmd:"" help:"Make a capsule."`
	Update capsulesUpdateCmd `cmd:"" help:"Change name, roles, types or quotas."`
	Rm     capsulesRmCmd     `cmd:"" help:"Delete an empty capsule."`
}

func (e *env) capsule(c api.Capsule) {
	quota := ""
	if c.QuotaBytes > 0 {
		quota = fmt.Sprintf(" of %s", size(c.QuotaBytes))
	}
	if c.QuotaMemories > 0 {
		quota += fmt.Sprintf(", at most %d memories", c.QuotaMemories)
	}
	types := ""
	if len(c.MIMETypes) > 0 {
		types = "  takes " + strings.Join(c.MIMETypes, ", ")
	}
	e.print(
		c, "%-24s  %6d memories (%d in the trash)  %s%s  %d open uploads  %s%s", c.CapsuleID, c.Memories, c.Trashed,
		size(c.Bytes), quota, c.OpenSessions, clean(c.Name), clean(types),
	)
}

type capsulesLsCmd struct{ asking }

// Run lists capsules.
func (c *capsulesLsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return pages(func(cursor string) (string, error) {
		page, err := client.ListCapsules(e.ctx, cursor, 1000)
		for _, row := range page.Capsules {
			e.capsule(row)
		}
		return page.NextCursor, err
	})
}

type capsulesShowCmd struct {
	asking
	ID string `arg:"" help:"The capsule."`
}

// Run prints a capsule.
func (c *capsulesShowCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return e.each([]string{c.ID}, func(id string) error {
		row, err := client.ReadCapsule(e.ctx, id)
		if err == nil {
			e.capsule(row)
		}
		return err
	})
}

type capsulesCreateCmd struct {
	asking
	ID         string   `arg:"" optional:"" help:"Its id ([a-z0-9][a-z0-9._-]{0,62}); the server makes one up where none is given."`
	Name       string   `help:"Its name, for people."`
	Subject    string   `placeholder:"ID" help:"The principal it is about: may read and write."`
	Owner      []string `placeholder:"ID" help:"Principals that own it; you, where none is named."`
	Controller []string `placeholder:"ID" help:"Principals that may read, write and delete."`
	MIMEType   []string `name:"mime-type" placeholder:"TYPE" help:"Types that it takes, such as application/pdf or image/*; all, where none is named."`
}

// Run makes a capsule.
func (c *capsulesCreateCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	row, err := client.CreateCapsule(e.ctx, api.CreateCapsuleRequest{
		CapsuleID: c.ID, Name: c.Name, Subject: c.Subject, Owners: c.Owner, Controllers: c.Controller,
		MIMETypes: c.MIMEType,
	})
	if err == nil {
		e.capsule(row)
	}
	return err
}

type capsulesUpdateCmd struct {
	asking
	ID            string    `arg:"" help:"The capsule."`
	Name          *string   `empty:"" help:"Its name, for people; empty: none."`
	Subject       *string   `empty:"" placeholder:"ID" help:"The principal it is about; empty: none."`
	Owner         *[]string `placeholder:"ID" help:"Principals that own it, instead of those that do."`
	Controller    *[]string `empty:"" placeholder:"ID" help:"Principals that may read, write and delete, instead of those that may; empty: none."`
	MIMEType      *[]string `name:"mime-type" empty:"" placeholder:"TYPE" help:"Types that it takes, such as application/pdf or image/*, instead of those that it took; empty: all."`
	QuotaBytes    *int64    `placeholder:"N" help:"The most bytes it may hold; 0: no bound (admins)."`
	QuotaMemories *int64    `placeholder:"N" help:"The most memories it may hold; 0: no bound (admins)."`
}

// Run changes a capsule.
func (c *capsulesUpdateCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	row, err := client.UpdateCapsule(e.ctx, api.UpdateCapsuleRequest{
		CapsuleID: c.ID, Name: c.Name, Subject: c.Subject, Owners: c.Owner, Controllers: c.Controller,
		QuotaBytes: c.QuotaBytes, QuotaMemories: c.QuotaMemories, MIMETypes: c.MIMEType,
	})
	if err == nil {
		e.capsule(row)
	}
	return err
}

type capsulesRmCmd struct {
	asking
	IDs []string `arg:"" name:"id" help:"Capsules; each must be empty, its trash too."`
}

// Run deletes capsules.
func (c *capsulesRmCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return e.each(c.IDs, func(id string) error {
		err := client.DeleteCapsule(e.ctx, id)
		if err == nil {
			e.print(map[string]string{"capsule_id": id, "state": "deleted"}, "%s is deleted", clean(id))
		}
		return err
	})
}
