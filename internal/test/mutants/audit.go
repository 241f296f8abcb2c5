package main

// ofAudit lets things happen of which the audit log has nothing, or too much.
func ofAudit() []mutant {
	return []mutant{
		{
			name: "what-is-hidden-is-not-audited", promise: 15, file: "api/audit.go",
			old:   "	return errors.Is(err, access.ErrHidden)",
			new:   "	return errors.Is(err, access.ErrHidden) && code == CodeDamaged",
			tests: []string{"api.TestTheAuditLogTellsWhoDidWhat", "api.TestRefusalsAreAudited"},
		},
		{
			name: "a-route-that-gives-rights-is-not-audited", promise: 18, file: "api/routes.go",
			old:   "			audit:  auditAlways,\n			method: post, path: \"/v1/capsules_update\"",
			new:   "			audit:  auditRefusals,\n			method: post, path: \"/v1/capsules_update\"",
			tests: []string{"api.TestEachRouteStatesWhatOfItIsAudited", "api.TestTheAuditLogTellsWhoDidWhat"},
		},
		{
			name: "refusals-flood-the-audit-log", promise: 12, file: "api/audit.go",
			old:   "	if !ok {\n		s.audits.leftOut.Add(1)\n		return\n	}",
			new:   "	if !ok {\n		s.audits.leftOut.Add(1)\n	}",
			tests: []string{"api.TestAFloodOfRefusalsIsBounded"},
		},
		{
			name: "a-flood-of-one-kind-hides-the-others", promise: 12, file: "api/audit.go",
			old:   "		if c == code {\n			return &a.floods[i]\n		}",
			new:   "		if c == code {\n			return &a.floods[i*0]\n		}",
			tests: []string{"api.TestAFloodOfRefusalsIsBounded"},
		},
		{
			name: "what-a-flood-left-out-is-not-told", promise: 12, file: "api/server.go",
			old:   "	s.audits.reportLeftOut(s.machine.now(), true)\n",
			new:   "",
			tests: []string{"api.TestAFloodOfRefusalsIsBounded"},
		},
		{
			name: "names-are-audited-with-their-values", promise: 14, file: "api/audit_members.go",
			old:   "	\"expires_in_seconds\", \"expires_at\", \"purge\",",
			new:   "	\"expires_in_seconds\", \"expires_at\", \"purge\", \"name\",",
			tests: []string{"api.TestNoFreeTextIsAudited", "api.TestNoLogHasASecret"},
		},
		{
			name: "any-text-is-an-id-in-the-audit-log", promise: 14, file: "api/audit.go",
			old:   "	case name == \"token_id\" && isID(value):",
			new:   "	case name == \"token_id\":",
			tests: []string{"api.TestNoLogHasASecret"},
		},
		{
			name: "a-token-is-a-capsule-in-the-audit-log", promise: 14, file: "api/audit.go",
			old:   "wholeSecrets.ReplaceAllLiteralString(value, hidden)",
			new:   "value",
			tests: []string{"api.TestNoLogHasASecret"},
		},
		{
			name: "the-log-has-a-token-in-the-wrong-member", promise: 14, file: "api/redact.go",
			old:   "slog.StringValue(withoutTokens(e.Error()))",
			new:   "slog.StringValue(e.Error())",
			tests: []string{"api.TestNoLogHasASecret", "api.TestSignInsAtAnIssuerAreAudited"},
		},
		{
			name: "all-tokens-of-issuers-sign-in-as-one", promise: 14, file: "api/audit.go",
			old:   "	if c.caller.External {\n",
			new:   "	if false {\n",
			tests: []string{"api.TestSignInsAtAnIssuerAreAudited"},
		},
		{
			name: "the-audit-log-has-raw-controls", promise: 14, file: "audit/ascii.go",
			old:   "(r < ' ' || r > '~')",
			new:   "r < ' '",
			tests: []string{"audit.TestARecordIsPlainText"},
		},
		{
			name: "sign-ins-are-remembered-without-bound", promise: 11, file: "api/audit_signins.go",
			old:   "	if !known && len(s.at) >= maxSignIns {",
			new:   "	if known && len(s.at) >= maxSignIns {",
			tests: []string{"api.TestSignInsAreBounded"},
		},
		{
			name: "a-renamed-audit-log-is-written-on", promise: 12, file: "cmd/sluice/auditlog.go",
			old:   "	if err == nil && os.SameFile(info, a.info) {",
			new:   "	if err == nil || info == nil {",
			tests: []string{"cmd/sluice.TestTheAuditLogFollowsItsName", "cmd/sluice.TestAnAuditLogThatCannotBeWritten"},
		},
		{
			name: "a-full-audit-disk-drops-at-once", promise: 12, file: "cmd/sluice/auditlog.go",
			old:   "		case <-time.After(auditRetry):\n",
			new:   "		case <-time.After(auditRetry):\n			return done, err\n",
			tests: []string{"cmd/sluice.TestAnAuditLogThatCannotBeWritten"},
		},
		{
			name: "a-token-expires-without-a-record", promise: 14, file: "keeper/principal.go",
			old:   "record.Action, record.Target.Principal, record.Target.Token = \"token_expired\", t.Principal, t.ID",
			new:   "_, record = t, nil",
			tests: []string{"api.TestRefusalsAreAudited"},
		},
	}
}
