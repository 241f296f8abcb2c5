package main

// ofCatalog breaks the rules of the catalog and of access.
func ofCatalog() []mutant {
	return []mutant{
		{
			name: "garbage-is-resurrected", promise: 8, file: "catalog/publish.go",
			old:   "		if ok && place.Refs == 0 {",
			new:   "		if ok && place.Refs < 0 {",
			tests: []string{"catalog.TestGarbageNeverComesBack"},
		},
		{
			name: "equal-content-keeps-the-older-copy", promise: 8, file: "catalog/publish.go",
			old:   "	was, is := had.Places(), content.Places()\n",
			new:   "	if had.Refs > 0 {\n		had.Refs++\n		return errors.Join(Discard(tx, content.Places(), at), Contents.Put(tx, key, had))\n	}\n	was, is := had.Places(), content.Places()\n",
			tests: []string{"catalog.TestAGoodCopyReplacesTheOlderOne"},
		},
		{
			name: "a-place-that-is-in-use-becomes-garbage", promise: 8, file: "catalog/publish.go",
			old:   "	place.Refs--\n	if err := Places.Put(tx, Name(name), place); err != nil || place.Refs > 0 {\n		return err\n	}",
			new:   "	place.Refs = 0\n	if err := Places.Put(tx, Name(name), place); err != nil {\n		return err\n	}",
			tests: []string{"catalog.TestAPlaceLivesAsLongAsItIsNamed"},
		},
		{
			name: "what-nothing-names-goes-without-grace", promise: 8, file: "catalog/publish.go",
			old:   "	return due(tx, at.in(PlaceGrace), DuePlace, name)",
			new:   "	return due(tx, at.in(0), DuePlace, name)",
			tests: []string{"catalog.TestAPlaceLivesAsLongAsItIsNamed"},
		},
		{
			name: "what-an-abort-leaves-goes-without-grace", promise: 8, file: "catalog/publish.go",
			old:   "		if err := due(tx, at.in(PlaceGrace), DuePlace, name); err != nil {",
			new:   "		if err := due(tx, at.in(0), DuePlace, name); err != nil {",
			tests: []string{"keeper.TestAnAbandonedSessionGoesWithItsBytes"},
		},
		{
			name: "an-aborted-session-keeps-its-reservation", promise: 7, file: "catalog/reserve.go",
			old:   "	c.Sessions--\n	c.Reserved -= r.Bytes\n",
			new:   "",
			tests: []string{"catalog.TestHistoriesKeepTheBooks"},
		},
		{
			name: "the-quota-is-not-asked-for", promise: 17, file: "catalog/reserve.go",
			old:   "	if used := c.Bytes + c.Reserved; c.QuotaBytes > 0 && bytes > 0 && used+bytes > c.QuotaBytes {",
			new:   "	if used := c.Bytes + c.Reserved; false {",
			tests: []string{"catalog.TestQuotasCountWhatIsReserved"},
		},
		{
			name: "open-sessions-are-not-counted", promise: 17, file: "catalog/reserve.go",
			old:   "	if b.MaxSessions > 0 && u.Sessions+one > b.MaxSessions {",
			new:   "	if false {",
			tests: []string{"catalog.TestHistoriesKeepTheBooks"},
		},
		{
			name: "events-have-gaps", promise: 9, file: "catalog/capsule.go",
			old:   "	c.Seq++\n	e.Capsule",
			new:   "	c.Seq += 2\n	e.Capsule",
			tests: []string{"catalog.TestHistoriesKeepTheBooks"},
		},
		{
			name: "a-repeated-finish-makes-a-second-memory", promise: 5, file: "catalog/publish.go",
			old:   "		} else if done {",
			new:   "		} else if done && false {",
			tests: []string{"catalog.TestHistoriesKeepTheBooks"},
		},
		{
			name: "control-characters-are-let-into-names", promise: 16, file: "catalog/meta.go",
			old:   "		if unicode.IsControl(r) && (!lines",
			new:   "		if unicode.IsControl(r) && false && (!lines",
			tests: []string{"catalog.TestMetadataIsRefusedByField", "catalog.FuzzMeta"},
		},
		{
			name: "a-path-may-lead-upwards", promise: 16, file: "catalog/meta.go",
			old:   `		case ".", "..":`,
			new:   `		case ".":`,
			tests: []string{"catalog.TestMetadataIsRefusedByField", "catalog.FuzzMeta"},
		},
		{
			name: "a-revoked-token-goes-on-until-its-request-ends", promise: 15, file: "access/allow.go",
			old:   "	admin, err := reauthenticate(r, c, now)\n	if err != nil {\n		return catalog.Capsule{}, err\n	}",
			new:   "	admin := c.Admin",
			tests: []string{"access.TestATokenEnds"},
		},
		{
			name: "a-token-never-expires", promise: 14, file: "access/allow.go",
			old:   "	return !t.Expires.IsZero() && !now.Before(t.Expires)",
			new:   "	return false",
			tests: []string{"access.TestATokenEnds"},
		},
		{
			name: "a-read-only-token-writes", promise: 14, file: "access/allow.go",
			old:   "	if c.ReadOnly && a != Read && a != Look && a != Inspect {",
			new:   "	if false {",
			tests: []string{"access.TestRolesDecide"},
		},
		{
			name: "a-stranger-learns-that-a-capsule-exists", promise: 15, file: "access/allow.go",
			old:   "		return catalog.Capsule{}, errHidden\n	}\n	if c.ReadOnly",
			new:   "		return catalog.Capsule{}, ErrForbidden\n	}\n	if c.ReadOnly",
			tests: []string{"access.TestRolesDecide"},
		},
		{
			name: "the-check-sum-of-a-secret-is-not-asked-for", promise: 14, file: "access/token.go",
			old:   "|| checkSum(s[:secretLen-7]) != s[secretLen-7:] {",
			new:   "{",
			tests: []string{"access.FuzzSecret"},
		},
		{
			name: "anybody-is-admin", promise: 18, file: "access/allow.go",
			old:   "	if !admin {\n",
			new:   "	if !admin && false {\n",
			tests: []string{"access.TestRolesDecide", "access.TestOnlyAnAdminNamesAnother"},
		},
		{
			name: "a-clock-that-is-set-back-revives-tokens", promise: 9, file: "catalog/principal.go",
			old:   "	return due(tx, at.in(t.Expires.Sub(t.Created)), DueToken, string(t.Hash[:]))",
			new:   "	return nil",
			tests: []string{"access.TestATokenEnds"},
		},
	}
}
