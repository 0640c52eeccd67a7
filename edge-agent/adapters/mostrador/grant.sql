-- Usuario de solo lectura para Mostrador (SQL Server). Ejecutar en la base de la tienda, como su dueño:
--     sqlcmd -d BASE -i grant.sql
-- A user that may only read; run it in the till's database as its owner.
-- Antes de ejecutar: cambie la clave. / Change the password first.
CREATE LOGIN ribera WITH PASSWORD = 'Cambie-esta-clave-1';
CREATE USER ribera FOR LOGIN ribera;
GRANT SELECT ON OBJECT::dbo.Tickets TO ribera;
GRANT SELECT ON OBJECT::dbo.TicketLineas TO ribera;
GRANT SELECT ON OBJECT::dbo.Productos TO ribera;
GRANT SELECT ON OBJECT::dbo.Existencias TO ribera;
