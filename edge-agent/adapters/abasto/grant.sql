-- Usuario de solo lectura para Abasto (MySQL, MariaDB). Ejecutar en la base de la tienda, como su dueño:
--     mariadb BASE < grant.sql
-- A user that may only read; run it in the till's database as its owner. It may call two procedures and read
-- the stock. It cannot read a ticket: the procedures run with the rights of whoever made them.
-- Antes de ejecutar: cambie la clave. / Change the password first.
CREATE USER IF NOT EXISTS ribera@'%' IDENTIFIED BY 'cambie-esta-clave' REQUIRE SSL;
GRANT EXECUTE ON PROCEDURE sp_select_ventas_diarias TO ribera@'%';
GRANT EXECUTE ON PROCEDURE sp_audit_operativa TO ribera@'%';
GRANT SELECT ON v_existencias TO ribera@'%';
