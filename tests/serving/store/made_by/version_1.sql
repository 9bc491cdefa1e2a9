BEGIN TRANSACTION;
CREATE TABLE api_keys (
	id TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	mode TEXT NOT NULL, 
	scopes TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	revoked_at BIGINT, 
	PRIMARY KEY (id), 
	UNIQUE (sha256)
);
INSERT INTO "api_keys" VALUES('key_39f4b947cba7fd54','49f7d57c37e2fc7574fbe952ab91d93514f567c16fb2f08adc05054257b5b760','test','score',3,NULL);
CREATE TABLE audit_log (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	action TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	content TEXT NOT NULL
);
INSERT INTO "audit_log" VALUES(1,10,'key:1','decided','refund:r1','{"action":"ALLOW"}');
CREATE TABLE decisions (
	score_id TEXT NOT NULL, 
	refund_id TEXT NOT NULL, 
	content_hash TEXT NOT NULL, 
	decided_at BIGINT NOT NULL, 
	record TEXT NOT NULL, 
	response TEXT NOT NULL, 
	PRIMARY KEY (score_id)
);
INSERT INTO "decisions" VALUES('s1','r1','content',10,'{"score":0.5,"features":{"a":1.5,"b":null},"contributions":{"a":0.25}}','{"data":{}}');
CREATE TABLE entities (
	kind TEXT NOT NULL, 
	value TEXT NOT NULL, 
	first_seen BIGINT NOT NULL, 
	moved BIGINT NOT NULL, 
	PRIMARY KEY (kind, value)
)
 WITHOUT ROWID

;
INSERT INTO "entities" VALUES('customer','7E3sFHymwD12LJtr2gcNWQ',5,1);
INSERT INTO "entities" VALUES('device','Ryd7E_yu62h43eZOHZINYA',5,0);
INSERT INTO "entities" VALUES('email','ovdWUBqRLOJZiRwWL2ec2A',5,0);
CREATE TABLE event_keys (
	key_kind TEXT NOT NULL, 
	key_value TEXT NOT NULL, 
	event_type TEXT NOT NULL, 
	known_at BIGINT NOT NULL, 
	own_known_at BIGINT NOT NULL, 
	event_id TEXT NOT NULL, 
	seq INTEGER NOT NULL, 
	PRIMARY KEY (key_kind, key_value, event_type, known_at, own_known_at, event_id)
)
 WITHOUT ROWID

;
INSERT INTO "event_keys" VALUES('customer','7E3sFHymwD12LJtr2gcNWQ','order',5,5,'0a5a191df94e5a06d4e1461c01006722',1);
INSERT INTO "event_keys" VALUES('customer','7E3sFHymwD12LJtr2gcNWQ','refund_outcome',20,20,'74f456cdbe372fe0715c53d88aab9c8a',3);
INSERT INTO "event_keys" VALUES('customer','7E3sFHymwD12LJtr2gcNWQ','refund_request',10,10,'ce579c89f6341ce1d8b21703b9df5a03',2);
INSERT INTO "event_keys" VALUES('device','Ryd7E_yu62h43eZOHZINYA','order',5,5,'0a5a191df94e5a06d4e1461c01006722',1);
INSERT INTO "event_keys" VALUES('device','Ryd7E_yu62h43eZOHZINYA','refund_outcome',20,20,'74f456cdbe372fe0715c53d88aab9c8a',3);
INSERT INTO "event_keys" VALUES('device','Ryd7E_yu62h43eZOHZINYA','refund_request',10,10,'ce579c89f6341ce1d8b21703b9df5a03',2);
INSERT INTO "event_keys" VALUES('email','ovdWUBqRLOJZiRwWL2ec2A','order',5,5,'0a5a191df94e5a06d4e1461c01006722',1);
INSERT INTO "event_keys" VALUES('order','o1','order',5,5,'0a5a191df94e5a06d4e1461c01006722',1);
INSERT INTO "event_keys" VALUES('order','o1','refund_outcome',20,20,'74f456cdbe372fe0715c53d88aab9c8a',3);
INSERT INTO "event_keys" VALUES('order','o1','refund_request',10,10,'ce579c89f6341ce1d8b21703b9df5a03',2);
INSERT INTO "event_keys" VALUES('refund','r1','refund_outcome',20,20,'74f456cdbe372fe0715c53d88aab9c8a',3);
INSERT INTO "event_keys" VALUES('refund','r1','refund_request',10,10,'ce579c89f6341ce1d8b21703b9df5a03',2);
CREATE TABLE events (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	event_id TEXT NOT NULL, 
	event_type TEXT NOT NULL, 
	known_at BIGINT NOT NULL, 
	order_id TEXT, 
	refund_id TEXT, 
	payload TEXT NOT NULL, 
	UNIQUE (event_id)
);
INSERT INTO "events" VALUES(1,'0a5a191df94e5a06d4e1461c01006722','order',5,'o1',NULL,'{"known_at":5,"order_id":"o1","customer_id":"7E3sFHymwD12LJtr2gcNWQ","amount_minor":500,"currency":"GBP","device_id":"Ryd7E_yu62h43eZOHZINYA","email":"ovdWUBqRLOJZiRwWL2ec2A","event_id":"0a5a191df94e5a06d4e1461c01006722"}');
INSERT INTO "events" VALUES(2,'ce579c89f6341ce1d8b21703b9df5a03','refund_request',10,'o1','r1','{"known_at":10,"refund_id":"r1","customer_id":"7E3sFHymwD12LJtr2gcNWQ","amount_minor":500,"currency":"GBP","order_id":"o1","device_id":"Ryd7E_yu62h43eZOHZINYA","event_id":"ce579c89f6341ce1d8b21703b9df5a03"}');
INSERT INTO "events" VALUES(3,'74f456cdbe372fe0715c53d88aab9c8a','refund_outcome',20,NULL,'r1','{"known_at":20,"refund_id":"r1","status":"COMPLETED","event_id":"74f456cdbe372fe0715c53d88aab9c8a"}');
CREATE TABLE fx_rates (
	date TEXT NOT NULL, 
	currency TEXT NOT NULL, 
	rate FLOAT NOT NULL, 
	PRIMARY KEY (date, currency)
)
 WITHOUT ROWID

;
CREATE TABLE idempotency_keys (
	api_key_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	content_hash TEXT NOT NULL, 
	status INTEGER NOT NULL, 
	response TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (api_key_id, "key")
)
 WITHOUT ROWID

;
CREATE TABLE identifiers (
	kind TEXT NOT NULL, 
	mac TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	ciphertext BLOB NOT NULL, 
	PRIMARY KEY (kind, mac)
)
 WITHOUT ROWID

;
INSERT INTO "identifiers" VALUES('customer','7E3sFHymwD12LJtr2gcNWQ','daa92f8a639b65b6',X'34BE7B71D08F75FD655AD97A7372B9FF00EE8648656C9BA717F5572866CC');
INSERT INTO "identifiers" VALUES('device','Ryd7E_yu62h43eZOHZINYA','daa92f8a639b65b6',X'0DFC675836807B2622537539A4BEE783B1BE94CBCE04BE970D79AD9E011F');
INSERT INTO "identifiers" VALUES('email','ovdWUBqRLOJZiRwWL2ec2A','daa92f8a639b65b6',X'BE9E359A96A1A2DF9095C3766B956F8BB9993455F16A6D694E73C0F4DFD619B040E26636A91FDA29271537');
CREATE TABLE lists (
	value TEXT NOT NULL, 
	list TEXT NOT NULL, 
	entity TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	PRIMARY KEY (value, list)
)
 WITHOUT ROWID

;
INSERT INTO "lists" VALUES('ovdWUBqRLOJZiRwWL2ec2A','block','email','fraud',7,NULL);
CREATE TABLE meta (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
)
 WITHOUT ROWID

;
INSERT INTO "meta" VALUES('clock','event');
INSERT INTO "meta" VALUES('key_id','daa92f8a639b65b6');
INSERT INTO "meta" VALUES('schema_version','1');
CREATE TABLE refunds (
	refund_id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	state_at BIGINT NOT NULL, 
	customer TEXT, 
	order_id TEXT, 
	first_known_at BIGINT, 
	payable_minor BIGINT, 
	currency TEXT, 
	reserved_minor BIGINT DEFAULT '0' NOT NULL, 
	score_id TEXT, 
	PRIMARY KEY (refund_id)
)
 WITHOUT ROWID

;
INSERT INTO "refunds" VALUES('r1','REFUNDED',20,'7E3sFHymwD12LJtr2gcNWQ','o1',10,500,'GBP',0,'s1');
CREATE INDEX events_by_order_id ON events (order_id, event_type) WHERE order_id IS NOT NULL;
CREATE INDEX events_by_refund_id ON events (refund_id, event_type) WHERE refund_id IS NOT NULL;
CREATE INDEX ix_refunds_order_id ON refunds (order_id);
CREATE INDEX decisions_by_refund ON decisions (refund_id, content_hash, decided_at);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);
CREATE INDEX ix_audit_log_subject ON audit_log (subject);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',3);
INSERT INTO "sqlite_sequence" VALUES('audit_log',1);
COMMIT;
