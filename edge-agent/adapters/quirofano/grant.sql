-- Usuario de solo lectura para Quirófano (Firebird 3). Ejecutar como SYSDBA:
--     isql -user SYSDBA SERVIDOR:BASE -i grant.sql
-- A user that may only read; run it as SYSDBA.
-- Antes de ejecutar: cambie la clave. / Change the password first.
CREATE OR ALTER USER RIBERA PASSWORD 'cambie-esta-clave' USING PLUGIN Srp;
GRANT SELECT ON TIPOS_DOCUMENTO TO RIBERA;
GRANT SELECT ON ALMACENES TO RIBERA;
GRANT SELECT ON ARTICULOS TO RIBERA;
GRANT SELECT ON EXISTENCIAS TO RIBERA;
GRANT SELECT ON DOCUMENTOS TO RIBERA;
GRANT SELECT ON PARTIDAS TO RIBERA;
COMMIT;
